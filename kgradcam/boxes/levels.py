"""Boxes at many heat levels.

A threshold that fits one image is wrong for the next. So regions are boxed at every level from the
threshold up, each box is scored by its heat, and non-maximum suppression keeps the best.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.expected_iou import expected_iou
from kgradcam.boxes.moves import move_sides
from kgradcam.boxes.normalization import WHOLE, Heatmap, normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.overlap import Boxes, box_iou
from kgradcam.boxes.regions import Saddles, region_boxes
from kgradcam.boxes.scores import Scores, score_boxes

LEVELS = tuple(level / 100 for level in range(5, 81, 5))
"""The heat levels. Regions above .8 are mere spots; finer steps find no new boxes."""
CANVAS = 128  # pixels of the longer side; a finer canvas moves boxes by less than heatmaps err

# Bounds of a hostile heatmap: a checkerboard has 131,000 regions, and took 25 seconds.
MAX_CANDIDATES, _MAX_BOXES = 10_000, 1000
_MAX_TABLE = 500
"""The most boxes whose overlaps are computed at once for all thresholds."""


def level_boxes(
    heatmap: npt.ArrayLike,
    size: tuple[int, int],
    probability: float,
    thresholds: Sequence[float],
    radii: Sequence[int],
    options: BoxOptions,
    extent: Sequence[float] = WHOLE,
) -> Iterator[tuple[Boxes, Scores]]:
    """Draws the boxes of the rules `"levels"`.

    Args:
        heatmap: `[height, width]`, at any resolution, not negative.
        size: `(width, height)` of the image in pixels.
        probability: The model's probability of the class, in [0, 1].
        thresholds: The lowest levels, in [0, 1].
        radii: Widths of the smoothing filter in pixels of the image.
        options: The score and the limits of non-maximum suppression.
        extent: The part of the image that the cells of the heatmap tile; see `normalize`.

    Yields:
        For each radius and, within it, each threshold: boxes `[boxes, 4]`, best first, and scores.
    """
    canvas, scale = level_canvas(heatmap, size, extent)
    shrink = min(1.0, CANVAS / max(size))
    for radius in radii:
        smoothed = _smooth(canvas, radius * shrink) if radius > 1 else canvas
        boxes, levels = boxes_at_levels(smoothed, thresholds)
        learned = options.score == "expected-iou"
        # Without a learned score, what is computed once serves all thresholds.
        scores = None if learned else score_boxes(canvas, boxes, probability, options.score)
        overlaps = None if learned or len(boxes) > _MAX_TABLE else box_iou(boxes, boxes)
        # The level of another threshold counts only if it is one of LEVELS too, so that the boxes
        # of a threshold do not depend on the others.
        regular = np.isin(levels, LEVELS)
        for threshold in thresholds:
            rows = np.flatnonzero((levels == threshold) | (regular & (levels > threshold)))
            if scores is None:
                candidates = boxes[rows]
                ranks = probability**0.1 * expected_iou(canvas, candidates)
                moved, found = compete(move_sides(canvas, candidates), ranks, options)
                yield moved * scale, found
            else:
                kept = suppress(rows, boxes, scores, overlaps, options)
                yield boxes[kept] * scale, scores[kept]


def level_canvas(
    heatmap: npt.ArrayLike, size: tuple[int, int], extent: Sequence[float] = WHOLE
) -> tuple[Heatmap, npt.NDArray[np.float64]]:
    """Returns the map that boxes are drawn on, and the factors from its pixels to the image's.

    Args:
        heatmap: `[height, width]`, at any resolution, not negative.
        size: `(width, height)` of the image in pixels.
        extent: The part of the image that the cells of the heatmap tile; see `normalize`.

    Returns:
        float32 `[height, width]` in [0, 1], the longer side at most `CANVAS`; and float64 `[4]`,
        one factor for each side of a box.
    """
    shrink = min(1.0, CANVAS / max(size))
    small = (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink)))
    scale = np.array([size[0] / small[0], size[1] / small[1]] * 2)
    return normalize(heatmap, small, extent), scale


def _smooth(canvas: Heatmap, width: float) -> Heatmap:
    """A box filter of any width in pixels of the canvas, which is interpolated linearly.

    The filter is symmetric, so no region moves; and less than a pixel has its effect too.
    """
    reach = int(np.ceil(width / 2))  # pixels on each side

    def integral(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The integral up to x of the weight of a pixel, which falls from 1 at 0 to 0 at +-1."""
        x = np.clip(x, -1, 1)
        return 0.5 + x - x * abs(x) / 2

    pixels = np.arange(-reach, reach + 1.0)
    weights = (integral(width / 2 - pixels) - integral(-width / 2 - pixels)) / width
    return cv2.sepFilter2D(canvas, -1, weights, weights, borderType=cv2.BORDER_REFLECT)


def boxes_at_levels(
    canvas: Heatmap, thresholds: Sequence[float]
) -> tuple[Boxes, npt.NDArray[np.float64]]:
    """The bounding boxes of the 4-connected regions above each level, and their levels.

    The levels are the thresholds, and those of `LEVELS` above the lowest threshold.
    """
    lowest = min(thresholds)
    boxes, levels, corner = [np.zeros((0, 4))], [np.zeros(0)], np.zeros(2)
    saddles = Saddles(canvas)
    for level in sorted({*thresholds, *(each for each in LEVELS if each > lowest)}):
        mask = (canvas > np.float32(level)).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        if not width:
            break
        # Masks are nested: the next, hotter one lies inside the bounding box of this one.
        within = np.s_[y : y + height, x : x + width]
        canvas, mask, corner = canvas[within], mask[within], corner + np.array([x, y])
        found = region_boxes(mask, saddles.at(level), filled=False)
        boxes.append(found + np.tile(corner, 2))
        levels.append(np.full(len(found), level))
    return np.concatenate(boxes), np.concatenate(levels)


def suppress(
    rows: npt.NDArray[np.int64],
    boxes: Boxes,
    scores: Scores,
    overlaps: npt.NDArray[np.float64] | None,
    options: BoxOptions,
) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression: those of `rows` to keep, best first; ties keep their order.

    `overlaps` is the IoU of all pairs of boxes, or `None` where there are too many.
    """
    candidates = rows[np.argsort(-scores[rows], kind="stable")]
    lowest = options.min_relative_score * scores[rows].max(initial=0.0)
    candidates = candidates[scores[candidates] >= lowest][:MAX_CANDIDATES]
    kept: list[np.int64] = []
    while len(candidates) and len(kept) < _MAX_BOXES:
        best, others = candidates[0], candidates[1:]
        kept.append(best)
        if overlaps is None:
            iou = box_iou(boxes[[best]], boxes[others])[0]
        else:
            iou = overlaps[best, others]
        candidates = others[iou <= options.iou_threshold]
    return np.array(kept, np.int64)


def compete(boxes: Boxes, scores: Scores, options: BoxOptions) -> tuple[Boxes, Scores]:
    """Soft non-maximum suppression: the best box is kept, and those that overlap it lose score.

    A score is multiplied by `exp(-(IoU / (1.5 * iou_threshold))**2)` (Bodla et al., ICCV 2017):
    the more of a box is explained by a better one, the less likely it is another object. A box with
    an IoU above twice the threshold goes.

    Returns:
        The boxes to keep, best first, and their scores; ties keep their order.
    """
    lowest = options.min_relative_score * scores.max(initial=0.0)
    width = max(1.5 * options.iou_threshold, 1e-9)
    left = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    boxes, scores = boxes[left], scores[left]
    kept, found = [np.zeros((0, 4))], [np.zeros(0)]
    while len(boxes) and len(kept) <= _MAX_BOXES:
        best = int(scores.argmax())
        if scores[best] < lowest:
            break
        kept.append(boxes[[best]])
        found.append(scores[[best]])
        boxes, scores = np.delete(boxes, best, axis=0), np.delete(scores, best)
        iou = box_iou(kept[-1], boxes)[0]
        near = iou <= 2 * options.iou_threshold
        boxes, scores = boxes[near], (scores * np.exp(-((iou / width) ** 2)))[near]
    return np.concatenate(kept), np.concatenate(found)
