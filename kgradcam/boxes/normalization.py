"""Brings a heatmap to the size of its image and to [0, 1]."""

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError

Heatmap = npt.NDArray[np.float32]

_LARGEST = np.finfo(np.float32).max


def normalize(heatmap: npt.ArrayLike, size: tuple[int, int]) -> Heatmap:
    """Resizes a heatmap to its image and stretches it to [0, 1].

    Args:
        heatmap: `[height, width]`, at any resolution.
        size: `(width, height)` of the image in pixels.

    Returns:
        float32 `[height, width]` of the image: bilinear interpolation, then
        `(x - min) / (max - min)`. A heatmap without contrast becomes zeros.

    Raises:
        UserError: `heatmap` is not two-dimensional, is empty, or holds NaN or infinite values.

    Example:
        >>> normalize([[1.0, 3.0]], (4, 1))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    values = np.asarray(heatmap, np.float32)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        received = "not finite" if values.ndim == 2 and values.size else f"of shape {values.shape}"
        raise UserError(f"heatmap must be [height, width] of finite values. It is {received}.")
    # The difference of two larger values would overflow float32.
    if np.abs(values).max() > _LARGEST / 2:
        values = values * np.float32(0.25)
    resized = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)
    resized = resized - resized.min()
    highest = resized.max()
    return resized / highest if highest > 0 else resized
