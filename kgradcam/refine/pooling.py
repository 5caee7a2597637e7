"""Features of the network in a box: exact means over cells of reduced feature maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes

CHANNELS = 64
"""The number of principal components that a feature map is reduced to, at most."""
_GRIDS = (3, 5)  # cells a side, for the map of the explained layer and the finer one
_CONTEXT = 1.6  # cells cover the box and three tenths of its size on each side

Maps = Sequence[npt.NDArray[np.float32]]
"""Feature maps of one image: of the explained layer, and of the next finer stride if there is one.

Each is float32 `[height, width, channels]`.
"""


@dataclass(frozen=True)
class Reduction:
    """Principal components of feature maps, of mean variance 1 each.

    Attributes:
        model: The digest of the network's weights.
        means: For each map, float64 `[channels]`.
        projections: For each map, float64 `[channels, components]`.
    """

    model: str
    means: tuple[npt.NDArray[np.float64], ...]
    projections: tuple[npt.NDArray[np.float64], ...]

    def __call__(self, maps: Maps) -> Maps:
        """Returns the components of feature maps, float32 `[height, width, components]` each."""
        return [
            (each.astype(np.float32) - mean.astype(np.float32)) @ projection.astype(np.float32)
            for each, mean, projection in zip(maps, self.means, self.projections, strict=True)
        ]

    def inputs(self, maps: Maps, boxes: Boxes, size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Returns the features of boxes, float64 `[boxes, features]`.

        Args:
            maps: The components of the feature maps of the image.
            boxes: `[boxes, 4]`, xyxy in pixels of the image.
            size: `(width, height)` of the image in pixels.
        """
        parts = [pool(each, boxes, size, grid) for each, grid in zip(maps, _GRIDS, strict=False)]
        return np.concatenate([part.reshape(len(boxes), -1) for part in parts], axis=1)


def fit_reduction(model: str, images: Sequence[Maps]) -> Reduction:
    """Finds the principal components of the feature maps of images.

    Args:
        model: The digest of the network's weights.
        images: The feature maps of each image.
    """
    means, projections = [], []
    for maps in zip(*images, strict=True):
        channels = maps[0].shape[-1]
        total, products, count = np.zeros(channels), np.zeros((channels, channels)), 0
        for each in maps:
            cells = each.reshape(-1, channels).astype(np.float64)
            total, count = total + cells.sum(axis=0), count + len(cells)
            products += cells.T @ cells
        mean = total / count
        variances, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
        kept = slice(-min(CHANNELS, channels), None)
        scale = np.sqrt(max(variances[kept].mean(), 1e-12))
        means.append(mean)
        projections.append(vectors[:, kept] / scale)
    return Reduction(model, tuple(means), tuple(projections))


def pool(
    feature_map: npt.NDArray[np.float32], boxes: Boxes, size: tuple[int, int], grid: int
) -> npt.NDArray[np.float32]:
    """Returns the means of a map over the cells of boxes, and the share of each cell in the image.

    Args:
        feature_map: float32 `[height, width, channels]`, whose cells tile the image; 0 outside.
        boxes: `[boxes, 4]`, xyxy in pixels of the image.
        size: `(width, height)` of the image in pixels.
        grid: The number of cells on each side.

    Returns:
        float32 `[boxes, grid, grid, channels + 1]`.
    """
    height, width, _ = feature_map.shape
    known = np.pad(feature_map, ((0, 0), (0, 0), (0, 1)), constant_values=1.0)
    rows = _overlaps(boxes[:, 1] / size[1] * height, boxes[:, 3] / size[1] * height, height, grid)
    columns = _overlaps(boxes[:, 0] / size[0] * width, boxes[:, 2] / size[0] * width, width, grid)
    strips = rows.reshape(-1, height) @ known.reshape(height, -1)
    strips = strips.reshape(len(boxes), grid, width, known.shape[-1])
    return np.asarray(np.matmul(columns[:, np.newaxis], strips), np.float32)


def _overlaps(
    low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], count: int, grid: int
) -> npt.NDArray[np.float32]:
    """The share of each of `grid` cells around a range in each of `count` unit ranges."""
    length = np.maximum(_CONTEXT * (high - low), 1e-6)
    edges = ((low + high) / 2)[:, np.newaxis] + length[:, np.newaxis] * (
        np.arange(grid + 1) / grid - 0.5
    )
    units = np.arange(count)
    upper = np.minimum(edges[:, 1:, np.newaxis], units + 1)
    lower = np.maximum(edges[:, :-1, np.newaxis], units)
    shares = np.clip(upper - lower, 0, None) / (length / grid)[:, np.newaxis, np.newaxis]
    return shares.astype(np.float32)
