"""The box rules of the 2021 scripts: smooth, threshold, fill holes, take connected components."""

from collections.abc import Sequence

import cv2
import numpy as np

from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes
from kgradcam.boxes.regions import Saddles, region_boxes


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
    saddles = Saddles(smoothed)
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
        boxes = region_boxes(mask[within], saddles.at(threshold), filled=True)[::-1]
        found[threshold] = boxes + np.array([left, top, left, top])
    return [found[threshold] for threshold in thresholds]


def _smooth(heatmap: Heatmap, radius: int) -> Heatmap:
    if radius > 1:
        # Columns, then rows, each rounded to float32: the order of SciPy's uniform filter, which
        # the scripts used. For an even width both put the extra pixel above and to the left.
        for window in ((1, radius), (radius, 1)):
            heatmap = cv2.blur(heatmap, window, borderType=cv2.BORDER_REFLECT)
    return heatmap
