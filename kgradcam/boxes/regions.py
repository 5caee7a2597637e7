"""The bounding boxes of the 4-connected regions of a heatmap above a level."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes


class Saddles:
    """The levels at which two regions of a heatmap touch at the corner of a pixel.

    Contours bound regions ten times faster than labels do, but OpenCV traces them with
    8-connectivity. They bound the 4-connected regions where no two pixels touch at a corner only.

    Args:
        heatmap: float32 `[height, width]`.
    """

    def __init__(self, heatmap: Heatmap) -> None:
        # In such a block of 2 x 2 pixels the upper edge rises where the lower one falls, and the
        # left one where the right one falls.
        across, along = heatmap[:, 1:] > heatmap[:, :-1], heatmap[1:] > heatmap[:-1]
        y, x = np.nonzero((across[:-1] ^ across[1:]) & (along[:, :-1] ^ along[:, 1:]))
        first = np.stack([heatmap[y, x], heatmap[y + 1, x + 1]])
        second = np.stack([heatmap[y, x + 1], heatmap[y + 1, x]])
        # The pixels of one diagonal are above such a level, and those of the other are not.
        self._from = np.minimum(first.max(axis=0), second.max(axis=0))
        self._below = np.maximum(first.min(axis=0), second.min(axis=0))

    def at(self, level: float) -> bool:
        """Returns whether pixels above `level`, compared in float32, touch at a corner only."""
        return bool(((self._from <= np.float32(level)) & (np.float32(level) < self._below)).any())


def region_boxes(mask: npt.NDArray[np.uint8], saddle: bool, filled: bool) -> Boxes:
    """Returns the bounding boxes of the 4-connected regions of a mask.

    Args:
        mask: `[height, width]`, 0 or 1, with at least one 1.
        saddle: Whether two of its pixels may touch at a corner only; see `Saddles.at`.
        filled: Fills its holes first, so that a region inside a hole is a part of the one around
            it. A hole is background that is not 4-connected to the border.

    Returns:
        float64 `[regions, 4]`, xyxy, ordered by the first pixel of each in raster order.
    """
    if saddle:
        mask = fill_holes(mask) if filled else mask
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        found = stats[1:, :4]  # row 0 is the background
    else:
        # Both modes give outer contours without a parent. The first leaves out regions in holes.
        mode = cv2.RETR_EXTERNAL if filled else cv2.RETR_CCOMP
        contours, hierarchy = cv2.findContours(mask, mode, cv2.CHAIN_APPROX_SIMPLE)
        outer = [c for c, links in zip(contours, hierarchy[0], strict=True) if links[3] < 0]
        # A contour starts at the first pixel of its region.
        outer.sort(key=lambda contour: (contour[0, 0, 1], contour[0, 0, 0]))
        found = np.array([cv2.boundingRect(contour) for contour in outer])
    left, top, width, height = found.T
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float64)


def fill_holes(mask: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Fills the holes of a mask: background that is not 4-connected to the border."""
    padded = np.pad(mask.astype(np.uint8), 1)
    cv2.floodFill(padded, None, (0, 0), 2, flags=4)
    return (padded[1:-1, 1:-1] != 2).astype(np.uint8)
