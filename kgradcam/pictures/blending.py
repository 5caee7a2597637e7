"""Blends heat over a picture: the colours of heat, and `overlay`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import WHOLE, as_float32, fit
from kgradcam.errors import UserError, did_you_mean

Picture = npt.NDArray[np.uint8]

OPACITY = 0.7
"""The default opacity of the hottest pixel of a heatmap over an image."""
COLORMAP = "viridis"
"""The default colours of heat. Their lightness grows evenly, and fur and skin have none of them."""


def overlay(
    image: npt.ArrayLike,
    heatmap: npt.ArrayLike,
    opacity: float = OPACITY,
    extent: Sequence[float] = WHOLE,
    colormap: str = COLORMAP,
) -> Picture:
    """Blends a heatmap over an image; hotter pixels are more opaque.

    Args:
        image: `[height, width, 3]`, RGB; or grey, or RGBA, whose opacity is ignored; or a PIL
            picture, or a batch of one. uint8, or floats in [0, 1], or else in [0, 255].
        heatmap: float `[rows, columns]` in [0, 1], at any resolution; resized bilinearly. NaN
            counts as 0. Or a batch of one.
        opacity: The opacity of heat 1, in [0, 1]. Heat 0 leaves the image as it is.
        extent: The part of the image that the cells of the heatmap tile; see `normalize`.
        colormap: The name of one of matplotlib's colormaps.

    Returns:
        uint8 `[height, width, 3]`, RGB.

    Raises:
        UserError: The picture or the heatmap has another shape or range, or there is no such
            colormap.

    Example:
        >>> image = np.full((2, 2, 3), 100, np.uint8)
        >>> overlay(image, np.array([[0.0, 1.0]]))[0].tolist()
        [[100, 100, 100], [207, 192, 56]]
    """
    picture = as_picture(image)
    height, width = picture.shape[:2]
    heat = np.nan_to_num(as_float32(heatmap))
    heat = heat[0] if heat.ndim == 3 and len(heat) == 1 else heat
    if heat.ndim != 2 or not heat.size:
        raise UserError(f"heatmap must be [height, width]. Received: shape {np.shape(heatmap)}.")
    heat = fit(np.clip(heat, 0, 1), (width, height), extent)
    weight = opacity * heat[..., np.newaxis]
    return np.round(picture * (1 - weight) + heat_colors(heat, colormap) * weight).astype(np.uint8)


def as_picture(image: npt.ArrayLike) -> npt.NDArray[Any]:
    """A picture as `[height, width, 3]` in [0, 255]."""
    values = np.asarray(image)
    picture = values[0] if values.ndim == 4 and len(values) == 1 else values
    picture = picture[..., np.newaxis] if picture.ndim == 2 else picture
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or not picture.size:
        raise UserError(
            "image must be one picture, [height, width] or [height, width, 1, 3 or 4]. Received: "
            f"shape {values.shape}."
        )
    if picture.dtype.kind not in "buif":
        raise UserError(f"image must hold integers or floats. Received: {picture.dtype}.")
    low, high = picture.min(), picture.max()
    if not (low >= 0 and high <= 255):
        raise UserError(
            f"image must be in [0, 1] or [0, 255]. Received: values from {low:g} to {high:g}."
        )
    picture = np.broadcast_to(picture[..., :3], (*picture.shape[:2], 3))
    in_unit = picture.dtype.kind in "bf" and high <= 1
    return picture.astype(np.float64) * 255 if in_unit else picture


def heat_colors(heat: npt.NDArray[Any], colormap: str = COLORMAP) -> npt.NDArray[np.float64]:
    """Returns the colour of each value of heat: `[..., 3]`, RGB in [0, 255], for [0, 1]."""
    import matplotlib

    if colormap not in matplotlib.colormaps:
        raise UserError(
            "colormap must be one of matplotlib's, such as viridis, inferno or turbo. Received: "
            f"{colormap!r}.{did_you_mean(colormap, list(matplotlib.colormaps))}"
        )
    return np.asarray(matplotlib.colormaps[colormap](heat)[..., :3] * 255, np.float64)
