"""Brings a heatmap to the size of its image and to [0, 1]."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError

Heatmap = npt.NDArray[np.float32]

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The extent of a heatmap whose cells tile the whole image."""
_LARGEST = np.finfo(np.float32).max


def normalize(
    heatmap: npt.ArrayLike, size: Sequence[int], extent: Sequence[float] = WHOLE
) -> Heatmap:
    """Resizes a heatmap to its image and stretches it to [0, 1].

    Args:
        heatmap: `[height, width]`, at any resolution; or that of a series, `[length]`, or of a
            volume, `[depth, height, width]`.
        size: `(width, height)` of the image in pixels; for a series `(length,)`, for a volume
            `(depth, height, width)`.
        extent: The part of the image that its cells tile, xyxy in fractions of the width and
            height; see `Explanation.extent`.

    Returns:
        float32 `[height, width]` of the image: bilinear interpolation, then
        `(x - min) / (max - min)`. A heatmap without contrast becomes zeros. Pixels outside the
        extent are 0.

    Raises:
        UserError: `heatmap` has another rank, is empty, or holds NaN or infinite values, or `size`
            has not one positive number for each axis.

    Example:
        >>> normalize([[1.0, 3.0]], (4, 1))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    values = as_float32(heatmap)
    if values.ndim not in (1, 2, 3) or not values.size or not np.isfinite(values).all():
        known = values.ndim in (1, 2, 3) and values.size
        received = "not finite" if known else f"of shape {values.shape}"
        raise UserError(f"heatmap must be [height, width] of finite values. It is {received}.")
    check_size(size, values.ndim)
    # The difference of two larger values would overflow float32.
    if np.abs(values).max() > _LARGEST / 2:
        values = values * np.float32(0.25)
    resized = fit(values, size, extent) if values.ndim == 2 else _fit_axes(values, size)
    resized = resized - resized.min()
    highest = resized.max()
    return resized / highest if highest > 0 else resized


def as_float32(heatmap: npt.ArrayLike) -> Heatmap:
    """Converts a heatmap to float32; values beyond its range become infinite.

    Raises:
        UserError: It holds other things than real numbers.
    """
    try:
        values = np.asarray(heatmap)
        if values.dtype.kind not in "cSUMm":  # NumPy would drop imaginary parts
            with np.errstate(over="ignore"):
                return values.astype(np.float32, copy=False)
        received = str(values.dtype)
    except (TypeError, ValueError) as error:
        received = str(error)
    raise UserError(f"heatmap must be an array of real numbers. Received: {received}.")


def check_size(size: Sequence[int], axes: int = 2) -> None:
    """Checks that a size has one positive whole number for each axis of a heatmap.

    Raises:
        UserError: It has not.
    """
    numbers = np.asarray(size)
    if numbers.shape != (axes,) or numbers.dtype.kind not in "iu" or numbers.min() < 1:
        expected = {1: "(length,)", 2: "(width, height)", 3: "(depth, height, width)"}[axes]
        raise UserError(f"size must be {expected} in whole pixels from 1 up. Received: {size!r}.")


def _fit_axes(heatmap: Heatmap, size: Sequence[int]) -> Heatmap:
    """Resizes a heatmap of a series or volume along each of its axes, linearly."""
    for axis, pixels in enumerate(size):
        weights = _weights(heatmap.shape[axis], int(pixels), 0.0, 1.0)
        heatmap = np.moveaxis(np.tensordot(weights, heatmap, (1, axis)), 0, axis)
    return heatmap


def fit(heatmap: Heatmap, size: Sequence[int], extent: Sequence[float]) -> Heatmap:
    """Resizes a heatmap to `(width, height)` of its image, where it covers `extent` of the image.

    Bilinear interpolation between the centres of cells, constant up to their borders. Pixels that
    the cells do not cover get the lowest value.
    """
    if tuple(extent) == WHOLE:
        return cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR)
    lowest = heatmap.min()
    rows = _weights(heatmap.shape[0], size[1], extent[1], extent[3])
    columns = _weights(heatmap.shape[1], size[0], extent[0], extent[2])
    return rows @ (heatmap - lowest) @ columns.T + lowest


def _weights(count: int, pixels: int, low: float, high: float) -> Heatmap:
    """The weight of each of `count` cells in each pixel, `[pixels, count]`; 0 beyond the cells."""
    places = ((np.arange(pixels)[:, np.newaxis] + 0.5) / pixels - low) / (high - low) * count
    distances = np.abs(np.clip(places - 0.5, 0, count - 1) - np.arange(count))
    covered = (places >= 0) & (places <= count)
    return (covered * np.maximum(1 - distances, 0)).astype(np.float32)
