"""Heat that spreads to what looks alike."""

import numpy as np
import tensorflow as tf

from kgradcam.heatmaps.affinity import affinities, propagate


def test_affinity_is_the_product_of_centred_cosines() -> None:
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(2, 3, 4, depth)).astype(np.float32) for depth in (5, 2)]
    expected = np.ones((2, 12, 12))
    for each in maps:
        for i in range(2):
            rows = each[i].reshape(12, -1)
            rows = rows - rows.mean(axis=0)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            expected[i] *= np.maximum(rows @ rows.T, 0)
    found = affinities([tf.constant(each) for each in maps]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_heat_fills_the_object_and_nothing_else() -> None:
    """Left half one thing, right half another; one hot cell on the left."""
    features = np.zeros((1, 2, 4, 2), np.float32)
    features[:, :, :2, 0] = features[:, :, 2:, 1] = 1.0
    heatmaps = np.zeros((1, 2, 4, 1), np.float32)
    heatmaps[0, 0, 0] = 1.0
    found = propagate(tf.constant(heatmaps), affinities([tf.constant(features)])).numpy()
    np.testing.assert_allclose(found[0, :, :, 0], [[0.25, 0.25, 0, 0]] * 2, atol=1e-6)


def test_the_sum_of_heat_is_kept() -> None:
    generator = np.random.default_rng(1)
    features = tf.constant(generator.normal(size=(1, 5, 5, 3)), tf.float32)
    heatmaps = tf.constant(generator.uniform(size=(1, 5, 5, 2)), tf.float32)
    found = propagate(heatmaps, affinities([features])).numpy()
    np.testing.assert_allclose(found.sum(axis=(1, 2)), heatmaps.numpy().sum(axis=(1, 2)), rtol=0.05)


def test_cells_without_features_get_no_heat_and_no_nan() -> None:
    found = propagate(tf.ones((1, 2, 2, 1)), affinities([tf.zeros((1, 2, 2, 3))])).numpy()
    assert found.tolist() == [[[[0.0], [0.0]], [[0.0], [0.0]]]]
