"""The pointing game and the energy-based pointing game: heat inside annotated regions."""

from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError


def region_mask(region: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Returns the pixels of a region.

    Args:
        region: Boxes `[n, 4]`, xyxy in pixels, half-open; or a bool mask of the image's shape.
        shape: `(height, width)` of the image.

    Returns:
        bool `[height, width]`.

    Raises:
        UserError: The region has another shape or dtype.
    """
    if region.dtype == bool and region.shape == shape:
        return region
    if region.ndim != 2 or region.shape[1] != 4:
        raise UserError(
            f"region must be boxes [n, 4] or a bool mask of shape {shape}. "
            f"Received: {region.dtype} of shape {region.shape}."
        )
    mask = np.zeros(shape, bool)
    for xmin, ymin, xmax, ymax in np.clip(np.rint(region), 0, None).astype(int):
        mask[ymin:ymax, xmin:xmax] = True
    return mask


def pointing_hit(
    heatmap: npt.NDArray[Any], region: npt.NDArray[Any], tolerance: float = 15.0
) -> bool:
    """Plays the pointing game (Zhang et al., IJCV 2018) on one heatmap.

    Args:
        heatmap: `[height, width]` at the image's size; the first of its hottest pixels counts.
        region: Boxes or a mask; see `region_mask`.
        tolerance: The distance in pixels from the region below which the pixel is a hit.

    Returns:
        Whether the hottest pixel is a hit. A heatmap without heat is a miss.

    Example:
        >>> pointing_hit(np.eye(3)[::-1], np.array([[0, 0, 1, 1]]), tolerance=3)
        True
    """
    ys, xs = np.nonzero(region_mask(region, heatmap.shape))
    if not len(ys) or heatmap.max() <= 0:
        return False
    y, x = np.unravel_index(np.argmax(heatmap), heatmap.shape)
    return bool(((ys - y) ** 2 + (xs - x) ** 2).min() < tolerance**2)


def energy_inside(heatmap: npt.NDArray[Any], region: npt.NDArray[Any]) -> float:
    """Returns the share of the heat that lies in a region (Wang et al., CVPR workshops 2020).

    Args:
        heatmap: `[height, width]` at the image's size, non-negative.
        region: Boxes or a mask; see `region_mask`.

    Returns:
        A value in [0, 1]; 0 without heat.

    Example:
        >>> energy_inside(np.array([[1.0, 3.0]]), np.array([[1, 0, 2, 1]]))
        0.75
    """
    total = heatmap.sum(dtype=np.float64)
    inside = heatmap[region_mask(region, heatmap.shape)].sum(dtype=np.float64)
    return float(inside / total) if total > 0 else 0.0
