"""From a heatmap to boxes: normalize, smooth, threshold, fill, take connected components."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError

Heatmap = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]

_LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class BoxOptions:
    """How a heatmap becomes boxes.

    Attributes:
        smooth_radius: Width in pixels of the box filter that smooths the map; 0 for none.
        score: `"heat"`: a box's confidence is the probability of its class times the share of the
            map's heat inside the box. `"constant"`: 1 for every box, so that nothing is ranked.
    """

    smooth_radius: int = 20
    score: str = "heat"


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


def boxes_from_heatmap(heatmap: Heatmap, threshold: float, smooth_radius: int = 20) -> Boxes:
    """Draws a box around each hot region of a heatmap.

    The rules are those of the scripts that kgradcam grew from:

    1. If no value exceeds the threshold, the one box is the whole image.
    2. A box filter of `smooth_radius` pixels smooths the map, its borders reflected.
    3. Values above the threshold are the mask; its holes are filled, where a hole is background
       that 4-neighbours do not connect to the border.
    4. Each 4-connected component of the mask gives its bounding box.

    Args:
        heatmap: float32 `[height, width]` in [0, 1], at the image's size.
        threshold: In [0, 1]; what exceeds it, compared in float32, is hot.
        smooth_radius: Width of the box filter in pixels; 0 for none.

    Returns:
        float64 `[boxes, 4]`, xyxy in pixels from 0, half-open. Components are numbered in raster
        order of their first pixel, and the last one comes first. Empty if smoothing leaves nothing
        above the threshold.

    Example:
        >>> heatmap = np.zeros((4, 6), np.float32)
        >>> heatmap[1:3, 2:5] = 1.0
        >>> boxes_from_heatmap(heatmap, 0.5, smooth_radius=0)
        array([[2., 1., 5., 3.]])
    """
    return boxes_by_threshold(heatmap, [threshold], smooth_radius)[0]


def boxes_by_threshold(
    heatmap: Heatmap, thresholds: Sequence[float], smooth_radius: int = 20
) -> list[Boxes]:
    """Draws the boxes of `boxes_from_heatmap` for many thresholds, in less time than one by one.

    Args:
        heatmap: As there.
        thresholds: In [0, 1].
        smooth_radius: As there.

    Returns:
        The boxes for each threshold.
    """
    highest = heatmap.max()
    smoothed = _smooth(heatmap, smooth_radius)
    masks = np.empty(heatmap.size, bool)  # one piece of memory for all
    left = top = 0
    found: dict[float, Boxes] = {}
    for threshold in sorted(set(thresholds)):
        if not highest > np.float32(threshold):
            found[threshold] = np.array([[0.0, 0.0, heatmap.shape[1], heatmap.shape[0]]])
            continue
        mask = masks[: smoothed.size].reshape(smoothed.shape)
        np.greater(smoothed, threshold, out=mask)
        mask = mask.view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        if not width:
            found[threshold] = np.zeros((0, 4))
            continue
        # What is hotter lies in what is less hot: the next mask is looked for in this one.
        within = np.s_[y : y + height, x : x + width]
        smoothed, left, top = smoothed[within], left + x, top + y
        found[threshold] = _component_boxes(mask[within]) + np.array([left, top, left, top])
    return [found[threshold] for threshold in thresholds]


def _smooth(heatmap: Heatmap, radius: int) -> Heatmap:
    if radius > 1:
        # Down, then across, each rounded to float32, as SciPy's uniform filter does it; and for an
        # even width the extra pixel lies above and to the left.
        for window in ((1, radius), (radius, 1)):
            heatmap = cv2.blur(heatmap, window, borderType=cv2.BORDER_REFLECT)
    return heatmap


def _component_boxes(mask: npt.NDArray[np.uint8]) -> Boxes:
    # Outlines are ten times faster than labels, and those within holes are left out. But they run
    # on across corners: where one does, pixels must be labelled.
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if _cross_a_corner(outlines, mask):
        _, _, stats, _ = cv2.connectedComponentsWithStats(fill_holes(mask), connectivity=4)
        found = stats[:0:-1, :4]  # row 0 is the background
    else:
        # An outline starts at the first pixel of its component in raster order.
        outlines = sorted(outlines, key=lambda outline: (-outline[0, 0, 1], -outline[0, 0, 0]))
        found = np.array([cv2.boundingRect(outline) for outline in outlines])
    left, top, width, height = found.T
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float64)


def _cross_a_corner(outlines: Sequence[npt.NDArray[np.int32]], mask: npt.NDArray[np.uint8]) -> bool:
    """Whether an outline steps from one pixel to another that touches it at a corner only."""
    points = np.concatenate(outlines)[:, 0]
    following = np.roll(points, -1, axis=0)
    ends = np.cumsum([len(outline) for outline in outlines])
    following[ends - 1] = points[np.append(0, ends[:-1])]  # each outline is closed
    x, y = points.T
    next_x, next_y = following.T
    aside = mask[y, next_x] | mask[next_y, x]
    return bool(((aside == 0) & (x != next_x) & (y != next_y)).any())


def fill_holes(mask: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Returns a mask, 0 or 1, with the background that the border cannot reach filled in."""
    padded = np.pad(mask.astype(np.uint8), 1)
    cv2.floodFill(padded, None, (0, 0), 2, flags=4)
    return (padded[1:-1, 1:-1] != 2).astype(np.uint8)


def score_boxes(heatmap: Heatmap, boxes: Boxes, probability: float, score: str) -> Boxes:
    """Gives each box of a heatmap its confidence.

    Args:
        heatmap: float32 `[height, width]` in [0, 1], at the image's size.
        boxes: `[boxes, 4]`, xyxy in whole pixels inside it.
        probability: The model's probability of the class, in [0, 1].
        score: `"heat"` or `"constant"`, as in `BoxOptions`.

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
    return probability * np.clip(inside / heat[-1, -1], 0, 1)
