"""The box rules of the 2021 scripts: smooth, threshold, fill holes, take connected components."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes


def single_threshold_boxes(heatmap: Heatmap, threshold: float, smooth_radius: int = 20) -> Boxes:
    """Draws a box around each region of a heatmap above one threshold.

    The rules are those of the 2021 scripts, reproduced exactly:

    1. If no value exceeds the threshold, the only box is the whole image.
    2. A box filter of `smooth_radius` pixels smooths the heatmap, with reflected borders.
    3. Values above the threshold form the mask. Its holes are filled: a hole is background that
       is not 4-connected to the border.
    4. Each 4-connected component of the mask gives its bounding box.

    Args:
        heatmap: float32 `[height, width]` in [0, 1], at the image's size.
        threshold: In [0, 1]; a value must exceed it, compared in float32.
        smooth_radius: Width of the box filter in pixels; 0 for none.

    Returns:
        float64 `[boxes, 4]`, xyxy in pixels from 0, half-open. Components are ordered by their
        first pixel in raster order, the last one first. Empty if no smoothed value exceeds the
        threshold.

    Example:
        >>> heatmap = np.zeros((4, 6), np.float32)
        >>> heatmap[1:3, 2:5] = 1.0
        >>> single_threshold_boxes(heatmap, 0.5, smooth_radius=0)
        array([[2., 1., 5., 3.]])
    """
    return single_threshold_boxes_at(heatmap, [threshold], smooth_radius)[0]


def single_threshold_boxes_at(
    heatmap: Heatmap, thresholds: Sequence[float], smooth_radius: int = 20
) -> list[Boxes]:
    """Runs `single_threshold_boxes` for many thresholds, sharing the work.

    Args:
        heatmap: float32 `[height, width]` in [0, 1], at the image's size.
        thresholds: In [0, 1].
        smooth_radius: Width of the box filter in pixels; 0 for none.

    Returns:
        The boxes for each threshold, in the order given.
    """
    highest = heatmap.max()
    smoothed = _smooth(heatmap, smooth_radius)
    masks = np.empty(heatmap.size, bool)  # one buffer, reused for every threshold
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
        # Masks are nested: the next, hotter one lies inside the bounding box of this one.
        within = np.s_[y : y + height, x : x + width]
        smoothed, left, top = smoothed[within], left + x, top + y
        found[threshold] = _component_boxes(mask[within]) + np.array([left, top, left, top])
    return [found[threshold] for threshold in thresholds]


def _smooth(heatmap: Heatmap, radius: int) -> Heatmap:
    if radius > 1:
        # Columns, then rows, each rounded to float32: the order of SciPy's uniform filter, which
        # the scripts used. For an even width both put the extra pixel above and to the left.
        for window in ((1, radius), (radius, 1)):
            heatmap = cv2.blur(heatmap, window, borderType=cv2.BORDER_REFLECT)
    return heatmap


def _component_boxes(mask: npt.NDArray[np.uint8]) -> Boxes:
    # Contours are ten times faster than labels, and RETR_EXTERNAL skips those inside holes. But
    # OpenCV traces them with 8-connectivity: if one crosses a corner, pixels must be labelled.
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if _cross_a_corner(contours, mask):
        _, _, stats, _ = cv2.connectedComponentsWithStats(fill_holes(mask), connectivity=4)
        found = stats[:0:-1, :4]  # row 0 is the background
    else:
        # A contour starts at the first pixel of its component in raster order.
        contours = sorted(contours, key=lambda contour: (-contour[0, 0, 1], -contour[0, 0, 0]))
        found = np.array([cv2.boundingRect(contour) for contour in contours])
    left, top, width, height = found.T
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float64)


def _cross_a_corner(contours: Sequence[npt.NDArray[np.int32]], mask: npt.NDArray[np.uint8]) -> bool:
    """Whether a contour steps between two pixels that touch at a corner only."""
    points = np.concatenate(contours)[:, 0]
    following = np.roll(points, -1, axis=0)
    ends = np.cumsum([len(contour) for contour in contours])
    following[ends - 1] = points[np.append(0, ends[:-1])]  # contours are closed
    x, y = points.T
    next_x, next_y = following.T
    aside = mask[y, next_x] | mask[next_y, x]
    return bool(((aside == 0) & (x != next_x) & (y != next_y)).any())


def fill_holes(mask: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Fills the holes of a mask: background that is not 4-connected to the border."""
    padded = np.pad(mask.astype(np.uint8), 1)
    cv2.floodFill(padded, None, (0, 0), 2, flags=4)
    return (padded[1:-1, 1:-1] != 2).astype(np.uint8)
