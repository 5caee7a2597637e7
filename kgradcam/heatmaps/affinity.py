"""Refinement: heat spreads from the decisive part of an object to regions with similar features.

A heatmap is hot where the network decides, on the muzzle rather than on the whole dog. The features
of earlier layers do not depend on a class, and are similar within an object. A random walk over
their similarities spreads the heat, as in Ahn & Kwak, "Learning Pixel-level Semantic Affinity"
(CVPR 2018), but with similarities that are not trained.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

STEPS = 2
"""Steps of the random walk: one leaves parts of an object cold, three leave it."""


def affinities(feature_maps: Sequence[Any]) -> Any:
    """Returns the pairwise similarities of the cells of feature maps.

    Args:
        feature_maps: float32 `[batch, height, width, channels]` each, on one grid.

    Returns:
        float32 `[batch, cells, cells]` in [0, 1], symmetric: the product, over all feature maps, of
        the cosine of two cells' features minus their mean over all cells, clamped at 0.
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
    """Gives each cell the mean heat of all cells, weighted by their affinity, `STEPS` times.

    The weights are the affinities A, balanced so that rows and columns sum to about 1 (two Sinkhorn
    iterations): the mean of `diag(u) A diag(v)` and its transpose. Without balancing, large uniform
    areas would absorb the heat. The balanced matrix is never stored: A is large, and products with
    it are cheap.

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
    for _ in range(STEPS):
        scaled = tf.concat([columns * flat, rows * flat], 2)
        one, other = tf.split(tf.matmul(affinity, scaled), 2, 2)
        flat = (rows * one + columns * other) / 2
    return tf.reshape(flat, shape)
