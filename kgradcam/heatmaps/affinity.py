"""From the part that gives a class away to the whole object: heat spreads to what looks alike.

A heatmap is hot where the network decides, on a muzzle rather than on a dog. Earlier feature maps
know no class, but they know what belongs together: places whose features point the same way share
their heat. It is one step of a random walk, as in Ahn & Kwak, "Learning Pixel-level Semantic
Affinity" (CVPR 2018), with affinities that nobody has trained.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def affinities(feature_maps: Sequence[Any]) -> Any:
    """Returns how alike the cells of feature maps are.

    Args:
        feature_maps: float32 `[batch, height, width, channels]` each, on one grid.

    Returns:
        float32 `[batch, cells, cells]` in [0, 1], symmetric: the product over the feature maps of
        the cosines of the features, each less its mean over the cells, and 0 where one is negative.
    """
    product = None
    for each in feature_maps:
        shape = tf.shape(each)
        flat = tf.reshape(each, [shape[0], -1, each.shape[-1]])
        centred = tf.math.l2_normalize(flat - tf.reduce_mean(flat, 1, keepdims=True), -1)
        cosines = tf.nn.relu(tf.matmul(centred, centred, transpose_b=True))
        product = cosines if product is None else product * cosines
    return product


def propagate(heatmaps: Any, affinity: Any) -> Any:
    """Gives each cell the mean heat of all cells, weighed by how alike they are.

    The weights are the affinities A with rows and columns scaled to sum to about 1 (Sinkhorn,
    twice), lest large even areas soak up the heat: the mean of `diag(u) A diag(v)` and its
    transpose. They are never written down: A is large, and products with it are cheap.

    Args:
        heatmaps: float32 `[batch, height, width, classes]`.
        affinity: float32 `[batch, cells, cells]`, as `affinities` returns it.

    Returns:
        float32, the shape of `heatmaps`.
    """
    shape = tf.shape(heatmaps)
    flat = tf.reshape(heatmaps, [shape[0], -1, shape[3]])
    rows = tf.ones_like(flat[:, :, :1])
    for _ in range(2):
        columns = tf.math.reciprocal_no_nan(tf.matmul(affinity, rows))
        rows = tf.math.reciprocal_no_nan(tf.matmul(affinity, columns))
    one, other = tf.split(tf.matmul(affinity, tf.concat([columns * flat, rows * flat], 2)), 2, 2)
    return tf.reshape((rows * one + columns * other) / 2, shape)
