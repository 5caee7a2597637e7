"""Guided Grad-CAM: by hand on a small network, at the image's resolution, and without ReLUs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.methods import GuidedGradCAM


def test_guided_grad_cam_by_hand() -> None:
    """Two ReLUs whose backward passes let through positive gradients where they were active."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 1, use_bias=False, name="first"),
            keras.layers.ReLU(max_value=6),
            keras.layers.Conv2D(3, 1, use_bias=False, activation="relu", name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, use_bias=False, name="head"),
        ]
    )
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    first, maps, head = (model.get_layer(name).kernel.numpy() for name in ("first", "maps", "head"))
    first, maps = first[0, 0], maps[0, 0]
    hidden = np.clip(images @ first, 0, 6)
    active = np.maximum(hidden @ maps, 0)
    for c in (0, 1):
        g = np.broadcast_to(head[:, c] / 36, active.shape)
        g = np.where((g > 0) & (active > 0), g, 0) @ maps.T
        g = np.where((g > 0) & (hidden > 0), g, 0) @ first.T
        where = np.maximum(active @ head[:, c] / 36, 0)
        expected = where * np.abs(g).max(axis=-1)
        assert expected.max() > 0
        heatmaps = GuidedGradCAM(model)(images, classes=[c]).heatmaps[:, 0]
        np.testing.assert_allclose(heatmaps, expected, rtol=1e-4, atol=1e-7)
    # The guided gradients stay in their own pass: plain ones are as they were.
    tape_gradients = plain_gradients(model, images)
    assert (tape_gradients < 0).any()


def plain_gradients(model: keras.Model, images: np.ndarray) -> np.ndarray:
    with tf.GradientTape() as tape:
        inputs = tf.constant(images)
        tape.watch(inputs)
        scores = tf.function(model)(inputs)[:, 0]
    return tape.gradient(scores, inputs).numpy()


def test_guided_grad_cam_has_the_resolution_of_the_image() -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 4, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    cam = GuidedGradCAM(model)
    for size in ((16, 12), (8, 20)):
        images = np.random.default_rng(0).normal(size=(3, *size, 3))
        assert cam(images).heatmaps.shape == (3, 1, *size)
    assert cam.trace_count == 1
    smooth = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="gelu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(UserError, match="needs ReLUs to guide, and this model has none"):
        GuidedGradCAM(smooth)
