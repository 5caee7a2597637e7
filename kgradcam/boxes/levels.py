"""From a heatmap to boxes with scores.

A threshold that fits one picture is wrong for the next. So boxes are drawn around the hot regions
at every level from the threshold up, each is scored by what it holds, and of those that overlap the
best one stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.single_threshold import seed_boxes_by_threshold
from kgradcam.errors import UsageError, UserError, did_you_mean

Heatmap = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]

LEVELS = tuple(level / 100 for level in range(5, 81, 5))
"""Where regions are looked for: above .8 they are mere spots, and finer steps find nothing new."""
_CANVAS = 128  # pixels of the longer side: finer ones move boxes less than heatmaps err

_LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class BoxOptions:
    """How a heatmap becomes boxes.

    Attributes:
        rules: `"levels"`: the best of the boxes around hot regions at all levels from the threshold
            up, see `find_boxes`. `"seed"`: one around each region above the threshold, see
            `seed_boxes`.
        smooth_radius: Width in pixels of the box filter that smooths the map; 0 for none.
        score: The confidence of a box. `"density"`: the cube root of the class's probability, times
            the share of the map's heat that is inside the box, times the mean heat there.
            `"heat"`: the probability times that share. `"constant"`: 1, so that nothing is ranked.
        overlap: With `"levels"`: of two boxes whose IoU is higher, the one with the lower score is
            dropped.
        least: With `"levels"`: boxes with a lower score than this share of the best one's are
            dropped.
    """

    rules: str = "levels"
    smooth_radius: int = 0
    score: str = "density"
    overlap: float = 0.35
    least: float = 0.05

    def __post_init__(self) -> None:
        for name, value, known in (
            ("boxes", self.rules, ("levels", "seed")),
            ("score", self.score, ("density", "heat", "constant")),
        ):
            if value not in known:
                raise UsageError(
                    f"{name} must be {' or '.join(known)}. Received: {value!r}."
                    f"{did_you_mean(str(value), known)}"
                )


BOX_RULES = {
    "levels": BoxOptions(),
    "seed": BoxOptions(rules="seed", smooth_radius=20, score="heat"),
}
"""The defaults of each set of rules."""
THRESHOLDS = {"levels": (0.25,), "seed": (0.01, 0.02, 0.06)}


def normalize(heatmap: npt.ArrayLike, size: tuple[int, int]) -> Heatmap:
    """Resizes a heatmap to its image and stretches it to [0, 1].

    Args:
        heatmap: `[height, width]`, at any resolution.
        size: `(width, height)` of the image in pixels.

    Returns:
        float32 `[height, width]` of the image: bilinear, minus its minimum, over its maximum. A map
        without any contrast becomes zeros.

    Raises:
        UserError: It is not two-dimensional, empty, or holds NaN or infinite values.

    Example:
        >>> normalize([[1.0, 3.0]], (4, 1))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    values = np.asarray(heatmap, np.float32)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        what = "not finite" if values.ndim == 2 and values.size else f"of shape {values.shape}"
        raise UserError(f"heatmap must be [height, width] of finite values. It is {what}.")
    if np.abs(values).max() > _LARGEST / 2:  # the difference of two such values is infinite
        values = values * np.float32(0.25)
    resized = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)
    resized = resized - resized.min()
    highest = resized.max()
    return resized / highest if highest > 0 else resized


def find_boxes(
    heatmap: npt.ArrayLike,
    size: tuple[int, int],
    probability: float = 1.0,
    threshold: float = 0.25,
    options: BoxOptions = BOX_RULES["levels"],
) -> tuple[Boxes, Scores]:
    """Draws boxes around what a heatmap shows, and scores them.

    1. The heatmap is resized to the image's shape and stretched to [0, 1].
    2. At each of `LEVELS` from the threshold up, the 4-connected regions above it give their
       bounding boxes.
    3. A box is scored by the heat in it: much of all heat, and dense (see `BoxOptions.score`).
    4. Of boxes that overlap, the one with the highest score stays (greedy non-maximum suppression),
       and those that hardly score are left out.

    Args:
        heatmap: `[height, width]`, at any resolution, not negative.
        size: `(width, height)` of the image in pixels.
        probability: Of the class, in [0, 1].
        threshold: The lowest level, in [0, 1].
        options: Other choices, and the seed's rules.

    Returns:
        Boxes, float64 `[boxes, 4]`, xyxy in pixels from 0, half-open, best first with the default
        rules; and their scores, float64 `[boxes]` in [0, 1]. A map without heat has none.

    Example:
        >>> heatmap = np.zeros((4, 8), np.float32)
        >>> heatmap[1:3, 2:5] = 1.0
        >>> boxes, scores = find_boxes(heatmap, (80, 40), threshold=0.5)
        >>> boxes.round()
        array([[20., 10., 50., 30.]])
    """
    return boxes_by_option(
        heatmap, size, probability, [threshold], [options.smooth_radius], options
    )[0]


def boxes_by_option(
    heatmap: npt.ArrayLike,
    size: tuple[int, int],
    probability: float,
    thresholds: Sequence[float],
    radii: Sequence[int],
    options: BoxOptions,
) -> list[tuple[Boxes, Scores]]:
    """Draws the boxes of `find_boxes` for many options, in less time than one by one.

    Args:
        heatmap: As there, and likewise the next two.
        size: See there.
        probability: See there.
        thresholds: In [0, 1].
        radii: Smoothing radii in pixels; they replace that of the options.
        options: See there.

    Returns:
        Boxes and scores for each radius and, within it, each threshold.
    """
    if options.rules == "seed":
        resized = normalize(heatmap, size)
        found = [
            boxes
            for radius in radii
            for boxes in seed_boxes_by_threshold(resized, thresholds, radius)
        ]
        scores = score_boxes(resized, np.concatenate(found), probability, options.score)
        parts = np.split(scores, np.cumsum([len(boxes) for boxes in found])[:-1])
        return list(zip(found, parts, strict=True))
    shrink = min(1.0, _CANVAS / max(size))
    canvas = normalize(heatmap, (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))))
    scale = np.array([size[0] / canvas.shape[1], size[1] / canvas.shape[0]] * 2)
    results = []
    for radius in radii:
        window = round(radius * shrink)
        smoothed = cv2.blur(canvas, (window, window)) if window > 1 else canvas
        boxes, levels = _boxes_at_levels(smoothed, min(thresholds))
        scores = score_boxes(canvas, boxes, probability, options.score)
        for threshold in thresholds:
            above = np.flatnonzero(levels >= threshold)
            kept = above[_suppress(boxes[above], scores[above], options)]
            results.append((boxes[kept] * scale, scores[kept]))
    return results


def _boxes_at_levels(canvas: Heatmap, lowest: float) -> tuple[Boxes, npt.NDArray[np.float64]]:
    """The bounding boxes of the regions above each level, and their levels."""
    boxes, levels = [np.zeros((0, 4))], [np.zeros(0)]
    for level in sorted({lowest, *(each for each in LEVELS if each > lowest)}):
        mask = (canvas > np.float32(level)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        left, top, width, height = stats[1:, :4].T.astype(np.float64)  # row 0 is the background
        boxes.append(np.stack([left, top, left + width, top + height], axis=1))
        levels.append(np.full(len(stats) - 1, level))
    return np.concatenate(boxes), np.concatenate(levels)


def _suppress(boxes: Boxes, scores: Scores, options: BoxOptions) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression: the boxes that stay, best first; of equals the first."""
    least = options.least * scores.max(initial=0.0)
    waiting = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept = []
    while len(waiting) and scores[waiting[0]] >= least:
        best, others = waiting[0], waiting[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[others, :2])
        high = np.minimum(boxes[best, 2:], boxes[others, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        waiting = others[shared <= options.overlap * (areas[best] + areas[others] - shared)]
    return np.array(kept, np.int64)


def score_boxes(heatmap: Heatmap, boxes: Boxes, probability: float, score: str) -> Boxes:
    """Gives each box of a heatmap its confidence.

    Args:
        heatmap: float32 `[height, width]` in [0, 1], at the image's size.
        boxes: `[boxes, 4]`, xyxy in whole pixels inside it.
        probability: The model's probability of the class, in [0, 1].
        score: As in `BoxOptions`.

    Returns:
        float64 `[boxes]` in [0, 1]. A map without heat gives its box the confidence 0.
    """
    if score == "constant":
        return np.ones(len(boxes))
    # The heat above and left of each pixel's corner, so that a box's is four of them.
    heat = cv2.integral(heatmap, sdepth=cv2.CV_64F)
    if heat[-1, -1] == 0:
        return np.zeros(len(boxes))
    xmin, ymin, xmax, ymax = boxes.astype(int).T
    inside = heat[ymax, xmax] - heat[ymin, xmax] - heat[ymax, xmin] + heat[ymin, xmin]
    share = np.clip(inside / heat[-1, -1], 0, 1)
    if score == "heat":
        return probability * share
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.cbrt(probability) * share * np.clip(inside / areas, 0, 1)
