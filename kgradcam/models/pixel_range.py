"""Finds the range of pixel values that a model was trained on, by its first layers."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

UNIT = "0..1"
BYTES = "0..255"
SIGNED = "-1..1"
_PASSED_BY = (
    *(keras.layers.InputLayer, keras.layers.ZeroPadding2D, keras.layers.Resizing),
    *(keras.layers.CenterCrop, keras.layers.Dropout, keras.layers.Identity, keras.layers.Reshape),
)


def pixel_range(model: keras.Model) -> str | None:
    """Returns the range of the pixels that a model takes, or `None` if its layers do not show it.

    A first `Rescaling` maps the range to small numbers. A first `Normalization` or
    `BatchNormalization` holds the mean of the images that it was adapted to or trained on.

    Args:
        model: A built model of images.

    Returns:
        `"0..255"`, `"0..1"`, or `None`.
    """
    for layer in _first_layers(model):
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = np.ravel(layer.scale), np.ravel(layer.offset)
            farthest = np.abs(255 * scale + offset).max()
            if farthest > 256:  # nothing computes with numbers of this size
                return UNIT
            if farthest < 32:
                return BYTES
            continue
        if isinstance(layer, keras.layers.Normalization):
            return _range_of(layer.mean, layer.variance)
        if isinstance(layer, keras.layers.BatchNormalization):
            return _range_of(layer.moving_mean, layer.moving_variance)
        if not isinstance(layer, _PASSED_BY) and not type(layer).__name__.startswith("Random"):
            return None
    return None


def _first_layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        if getattr(layer, "layers", None):
            yield from _first_layers(layer)
        else:
            yield layer


def _range_of(mean: Any, variance: Any) -> str | None:
    """The range of images with this mean and variance of their channels."""
    means = np.ravel(keras.ops.convert_to_numpy(mean))
    variances = np.ravel(keras.ops.convert_to_numpy(variance))
    if not means.any():  # not trained, or on centred values
        return None
    if means.min() >= 0 and means.max() <= 1 and variances.max() <= 0.26:
        return UNIT
    return BYTES if means.max() > 2 else None
