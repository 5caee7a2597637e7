"""Signs of a shortcut: heat at the border, or at one place of all pictures, as on a watermark."""

from array import array
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

GRID = 8
"""Places are counted in a grid of 8 x 8 cells."""
_WINDOW = 3


class FixedPlace(NamedTuple):
    """The place outside the objects that has most heat in all pictures together.

    Attributes:
        share: Its share of the heat of a picture, the mean over the pictures, in [0, 1].
        box: The place, xyxy in fractions of the width and height.
        pictures: In how many pictures it has at least half of that share.
    """

    share: float
    box: tuple[float, float, float, float]
    pictures: int

    def where(self) -> str:
        """Returns the place in words, as `"top left"`, `"bottom"` or `"centre"`."""
        x, y = (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2
        vertical = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
        horizontal = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
        return " ".join(filter(None, (vertical, horizontal))) or "centre"


def border_share(heatmap: npt.NDArray[np.float32], rim: float = 0.1) -> float:
    """Returns the share of the heat in the outer rim of a picture.

    Args:
        heatmap: `[height, width]` at the image's size, non-negative.
        rim: The width of the rim, in parts of the height and of the width.

    Returns:
        A value in [0, 1]; 0 without heat. Even heat gives the share of the area, 0.36.

    Example:
        >>> heatmap = np.ones((10, 10), np.float32)
        >>> round(border_share(heatmap), 2)
        0.36
    """
    height, width = heatmap.shape
    rows, columns = round(rim * height), round(rim * width)
    total = heatmap.sum(dtype=np.float64)
    inner = heatmap[rows : height - rows, columns : width - columns].sum(dtype=np.float64)
    return float(1 - inner / total) if total > 0 else 0.0


def heat_cells(heatmap: npt.NDArray[Any], grid: int) -> npt.NDArray[np.float64]:
    """Returns the share of the heat in each cell of a grid.

    Args:
        heatmap: `[height, width]`, non-negative.
        grid: The number of rows, and of columns.

    Returns:
        float64 `[grid, grid]`; its sum is 1, or 0 without heat.

    Example:
        >>> heat_cells(np.array([[1.0, 1.0, 2.0, 4.0]]), 2).round(3).tolist()
        [[0.125, 0.375], [0.125, 0.375]]
    """
    values = heatmap.astype(np.float64)
    cells = cv2.resize(values, (grid, grid), interpolation=cv2.INTER_AREA)
    total = cells.sum()
    return cells / total if total > 0 else np.zeros((grid, grid))


def outside_cells(
    heatmap: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Returns the share of all heat that lies in each cell of a grid and outside the objects.

    Args:
        heatmap: `[height, width]` at the image's size, non-negative.
        inside: Whether a pixel belongs to an object, `[height, width]`.

    Returns:
        float64 `[8, 8]`; its sum is the share of the heat outside the objects.
    """
    total = heatmap.sum(dtype=np.float64)
    outside = np.where(inside, 0, heatmap)
    share = outside.sum(dtype=np.float64) / total if total > 0 else 0.0
    return heat_cells(outside, GRID) * share


class Places:
    """Finds the place that has heat in all pictures, outside the objects; 144 bytes a picture.

    A place is a window of 3 x 3 cells. Objects are elsewhere in each picture, so heat around them
    spreads over the windows; heat on a watermark does not.

    Example:
        >>> picture = np.zeros((8, 8))
        >>> picture[0, 0] = 0.5
        >>> places = Places()
        >>> places.add(picture)
        >>> places.add(picture)
        >>> places.fixed()
        FixedPlace(share=0.5, box=(0.0, 0.0, 0.375, 0.375), pictures=2)
    """

    def __init__(self) -> None:
        self._shares = array("f")

    def add(self, cells: npt.NDArray[np.float64]) -> None:
        """Adds a picture, by the result of `outside_cells`."""
        windows = np.lib.stride_tricks.sliding_window_view(cells, (_WINDOW, _WINDOW))
        self._shares.extend(windows.sum(axis=(-2, -1)).ravel())

    def fixed(self) -> FixedPlace:
        """Returns the place with most heat in the pictures added so far, of which there are any."""
        side = GRID - _WINDOW + 1
        shares = np.frombuffer(self._shares, np.float32).reshape(-1, side, side)
        mean = shares.mean(axis=0, dtype=np.float64)
        row, column = (int(i) for i in np.unravel_index(mean.argmax(), mean.shape))
        share = float(mean[row, column])
        box = tuple(each / GRID for each in (column, row, column + _WINDOW, row + _WINDOW))
        pictures = int((shares[:, row, column] >= share / 2).sum()) if share > 0 else 0
        return FixedPlace(share, (box[0], box[1], box[2], box[3]), pictures)
