"""Heatmaps of several layers, or of several scales, as one."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kgradcam.errors import UserError

_MOST_CELLS = 1024.0


def fuse_layers(maps: Sequence[Any]) -> Any:
    """The mean of heatmaps `[classes, batch, height, width]` of several sizes, each scaled to 1."""
    if any(each.shape.rank != 4 for each in maps):
        raise UserError("Several layers are fused on images only, not on series or volumes.")
    sizes = tf.stack([tf.shape(each)[2:] for each in maps])
    size = sizes[tf.argmax(tf.reduce_prod(sizes, axis=1))]

    def scaled(heatmaps: Any) -> Any:
        highest = tf.reduce_max(tf.abs(heatmaps), axis=[2, 3], keepdims=True)
        flat = tf.reshape(heatmaps, [-1, *tf.unstack(tf.shape(heatmaps)[2:]), 1])
        resized = tf.reshape(
            tf.image.resize(flat, size), [*tf.unstack(tf.shape(heatmaps)[:2]), *tf.unstack(size)]
        )
        return tf.math.divide_no_nan(resized, highest)

    return tf.add_n([scaled(each) for each in maps]) / len(maps)


def scaled_to_one(heatmaps: Any) -> Any:
    """Divides heatmaps `[batch, height, width, classes]` by their highest values."""
    return tf.math.divide_no_nan(
        heatmaps, tf.reduce_max(tf.abs(heatmaps), axis=[1, 2], keepdims=True)
    )


def at_most_cells(shape: Any) -> Any:
    """Shrinks a grid of more than `_MOST_CELLS` cells, since affinities grow as its square."""
    cells = tf.cast(tf.reduce_prod(shape), tf.float32)
    factor = tf.minimum(1.0, tf.sqrt(_MOST_CELLS / cells))
    return tf.maximum(tf.cast(tf.round(tf.cast(shape, tf.float32) * factor), tf.int32), 1)
