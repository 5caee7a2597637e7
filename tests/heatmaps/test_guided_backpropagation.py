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


@pytest.mark.parametrize(
    "activation",
    ["hard_swish", "hard_sigmoid", keras.layers.PReLU(alpha_initializer="ones"), "swish"],
)
def test_relus_inside_other_activations_do_not_count(activation) -> None:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 2))
    maps = keras.layers.Conv2D(4, 3, name="maps")(inputs)
    is_layer = isinstance(activation, keras.layers.Layer)
    maps = activation(maps) if is_layer else keras.layers.Activation(activation)(maps)
    scores = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(maps))
    with pytest.raises(UserError, match="none .those inside a PReLU, hard sigmoid or hard swish"):
        GuidedGradCAM(keras.Model(inputs, scores))


def test_other_activations_keep_their_gradient_beside_relus() -> None:
    """A ReLU network whose features a hard sigmoid gates: the gate's own gradient is ordinary."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5, 5, 2))
    conv = keras.layers.Conv2D(3, 1, activation="relu", use_bias=False, name="first")
    maps = keras.layers.Activation("hard_sigmoid")(conv(inputs))
    positive = keras.initializers.RandomUniform(0.1, 1.0, seed=1)
    head = keras.layers.Dense(2, use_bias=False, kernel_initializer=positive)
    model = keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(maps)))
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    first, last = conv.kernel.numpy()[0, 0], head.kernel.numpy()
    hidden = np.maximum(images @ first, 0)
    gate, largest = np.clip(hidden / 6 + 0.5, 0, 1), []
    for c in (0, 1):
        g = np.broadcast_to(last[:, c] / 25, hidden.shape) * (gate < 1) / 6
        g = np.where((g > 0) & (hidden > 0), g, 0) @ first.T
        expected = np.maximum(gate @ last[:, c] / 25, 0) * np.abs(g).max(axis=-1)
        found = GuidedGradCAM(model)(images, classes=[c]).heatmaps[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
        largest.append(found.max())
    assert max(largest) > 0
