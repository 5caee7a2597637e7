"""The box rules of the scripts of 2021: smooth, threshold, fill, take connected components."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Heatmap = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]


def seed_boxes(heatmap: Heatmap, threshold: float, smooth_radius: int = 20) -> Boxes:
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
        >>> seed_boxes(heatmap, 0.5, smooth_radius=0)
        array([[2., 1., 5., 3.]])
    """
    return seed_boxes_by_threshold(heatmap, [threshold], smooth_radius)[0]


def seed_boxes_by_threshold(
    heatmap: Heatmap, thresholds: Sequence[float], smooth_radius: int = 20
) -> list[Boxes]:
    """Draws the boxes of `seed_boxes` for many thresholds, in less time than one by one.

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
