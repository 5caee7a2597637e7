"""Grad-CAM against values that the tests of other packages publish."""

import keras
import numpy as np
import tensorflow as tf

from kgradcam.heatmaps.gradcam import GradCAM


def test_a_mask_that_pair_saliency_publishes() -> None:
    """`saliency/core/grad_cam_test.py` of PAIR-code/saliency: maps, gradients, expected mask."""
    maps = np.tile(np.array([1.0, 2, 3, 2, 1]), (5, 1))
    maps[[0, 4]] *= -1
    maps[2] = 0
    heatmap = published_heatmap(maps[..., None], np.full((5, 5, 1), 0.88))
    expected = np.zeros((5, 5))
    expected[[1, 3]] = [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]
    np.testing.assert_allclose(heatmap / heatmap.max(), expected, atol=1e-6)


def test_weights_that_tf_explain_publishes() -> None:
    """`tests/core/test_grad_cam.py` of tf-explain: gradients 1, 2, 3, outputs 1, 2, 4 make 17."""
    ones = np.ones((4, 4, 1))
    maps = np.concatenate([ones, 2 * ones, 4 * ones], axis=-1)
    gradients = np.concatenate([ones, 2 * ones, 3 * ones], axis=-1)
    np.testing.assert_allclose(published_heatmap(maps, gradients), np.full((4, 4), 17.0))


def test_weights_that_xplique_publishes() -> None:
    """`tests/attributions/test_grad_cam.py` of xplique: means of gradients over four places."""
    gradients = np.stack([[1.0, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0.5], [0.5, 0, 0, 0]], axis=-1)
    maps = np.random.default_rng(0).uniform(size=(2, 2, 4))
    expected = maps @ [4 / 4, 2 / 4, 1.5 / 4, 0.5 / 4]
    found = published_heatmap(maps, gradients.reshape(2, 2, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def published_heatmap(maps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM of a model made to have these maps, `[h, w, k]`, and these gradients."""
    bias = keras.initializers.Constant(0)
    inputs = keras.Input(maps.shape)
    kept = keras.layers.Conv2D(
        maps.shape[-1],
        1,
        kernel_initializer=lambda shape, dtype: tf.eye(maps.shape[-1])[None, None],
        bias_initializer=bias,
    )(inputs)
    score = keras.layers.Dense(1, kernel_initializer=lambda shape, dtype: gradients.reshape(-1, 1))
    model = keras.Model(inputs, score(keras.layers.Flatten()(kept)))
    return GradCAM(model)(maps[None].astype(np.float32), classes=[0]).heatmaps[0, 0]
