"""Heatmaps of several layers, or of several scales, as one."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.geometry import resample

_MAX_CELLS = 1024.0


def fuse_layers(maps: Sequence[Any], extents: Sequence[Any]) -> Any:
    """Averages the heatmaps of several layers at the largest of their sizes.

    Args:
        maps: float32 `[classes, batch, height, width]` of each layer.
        extents: The part of the image that each covers; see `extent_of`.

    Returns:
        float32 `[classes, batch, height, width]`, the mean of the heatmaps divided by their maxima;
        its cells tile the image.

    Raises:
        UserError: The heatmaps are those of series or volumes.
    """
    if any(each.shape.rank != 4 for each in maps):
        raise UserError("Several layers are fused on images only, not on series or volumes.")
    sizes = tf.stack([tf.shape(each)[2:] for each in maps])
    size = sizes[tf.argmax(tf.reduce_prod(sizes, axis=1))]

    def scaled(heatmaps: Any, extent: Any) -> Any:
        highest = tf.reduce_max(tf.abs(heatmaps), axis=[2, 3], keepdims=True)
        last = tf.einsum("cbhw->bhwc", tf.math.divide_no_nan(heatmaps, highest))
        return tf.einsum("bhwc->cbhw", resample(last, extent, size))

    return tf.add_n(list(map(scaled, maps, extents))) / len(maps)


def scaled_to_one(heatmaps: Any) -> Any:
    """Divides heatmaps `[batch, height, width, classes]` by their maxima."""
    return tf.math.divide_no_nan(
        heatmaps, tf.reduce_max(tf.abs(heatmaps), axis=[1, 2], keepdims=True)
    )


def at_most_cells(shape: Any) -> Any:
    """Returns the size of a grid, int32 `[2]`, reduced to about `_MAX_CELLS` cells.

    Affinities grow with the square of the number of cells.
    """
    cells = tf.cast(tf.reduce_prod(shape), tf.float32)
    factor = tf.minimum(1.0, tf.sqrt(_MAX_CELLS / cells))
    return tf.maximum(tf.cast(tf.round(tf.cast(shape, tf.float32) * factor), tf.int32), 1)
