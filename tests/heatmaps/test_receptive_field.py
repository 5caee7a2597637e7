"""Centres of receptive fields: by hand, against the pixels that reach a cell, and a resampling."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kgradcam.heatmaps.receptive_field import cell_centres, resample, stride


def centres_of(layers: list[keras.Layer], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The centres that a stack of layers is said to have, and those of the pixels it depends on."""
    for layer in layers:
        if hasattr(layer, "kernel_initializer"):
            layer.kernel_initializer = keras.initializers.Ones()
        if hasattr(layer, "depthwise_initializer"):
            layer.depthwise_initializer = keras.initializers.Ones()
    model = keras.Sequential([keras.Input((height, width, 1)), *layers])

    @tf.function
    def said(images: tf.Tensor) -> list[tf.Tensor]:
        maps = model(images)
        size = tf.shape(images)
        return [cell_centres(maps, size[1 + axis], axis) for axis in (0, 1)]

    image = tf.Variable(tf.random.stateless_uniform((1, height, width, 1), (1, 2)))
    said_centres = [each.numpy() for each in said(tf.convert_to_tensor(image))]
    with tf.GradientTape() as tape:
        maps = model(image)
        inner = tf.cast(tf.shape(maps)[1:3] // 2, tf.int32)
        value = maps[0, inner[0], inner[1], 0]
    reached = np.abs(tape.gradient(value, image).numpy()[0, :, :, 0]) > 0
    rows, columns = np.where(reached)
    middle = np.array([rows.min() + rows.max() + 1, columns.min() + columns.max() + 1]) / 2
    return np.array([said_centres[i][inner[i]] for i in (0, 1)]), middle


@settings(max_examples=10)
@given(
    st.lists(
        # Not 1: after 1 x 1 kernels with strides on one channel, TensorFlow 2.21 was found to have
        # written the map over memory that was no longer its own.
        st.tuples(st.sampled_from([2, 3, 5]), st.sampled_from([1, 2]), st.booleans()),
        min_size=1,
        max_size=3,
    ),
    st.integers(40, 47),
    st.integers(40, 47),
)
def test_a_cell_looks_at_the_middle_of_the_pixels_that_reach_it(
    stack: list[tuple[int, int, bool]], height: int, width: int
) -> None:
    layers = [
        keras.layers.Conv2D(1, kernel, strides=step, padding="same" if same else "valid")
        for kernel, step, same in stack
    ]
    said, middle = centres_of(layers, height, width)
    np.testing.assert_allclose(said, middle, atol=1e-4)


@pytest.mark.parametrize(
    "layers",
    [
        [keras.layers.ZeroPadding2D(((3, 2), (1, 4))), keras.layers.Conv2D(1, 7, strides=2)],
        [keras.layers.DepthwiseConv2D(5, 2, "same"), keras.layers.Activation("softplus")],
        [keras.layers.Conv2D(1, 3, dilation_rate=2, padding="same"), keras.layers.Conv2D(1, 3, 2)],
        [keras.layers.AveragePooling2D(3, 2, "same"), keras.layers.BatchNormalization()],
    ],
    ids=["padded", "depthwise", "dilated", "pooled"],
)  # fmt: skip
def test_every_kind_of_window(layers: list[keras.Layer]) -> None:
    said, middle = centres_of(layers, 33, 42)
    np.testing.assert_allclose(said, middle, atol=1e-4)


def test_five_halvings_by_hand() -> None:
    """`same` pads below and right at even sizes: .5 + .5 * (1 + 2 + 4 + 8 + 16) pixels."""
    inputs = keras.Input((224, 225, 3))
    maps = inputs
    for _ in range(5):
        maps = keras.layers.Conv2D(2, 3, strides=2, padding="same")(maps)
    model = keras.Model(inputs, maps)
    strides = []

    @tf.function
    def trace(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = model(images)
        strides.append(stride(found))
        return cell_centres(found, 224, 0), cell_centres(found, 225, 1)

    down, across = trace(tf.zeros((1, 224, 225, 3)))
    assert strides == [32]
    np.testing.assert_allclose(down, 31.5 + 32 * np.arange(7))
    np.testing.assert_allclose(across, 0.5 + 32 * np.arange(8))


def test_cells_of_unknown_origin_tile_the_image() -> None:
    @tf.function
    def trace(tokens: tf.Tensor) -> tf.Tensor:
        return cell_centres(tf.reshape(tokens, (1, 4, 4, 2)), 64, 0)

    np.testing.assert_allclose(trace(tf.zeros((1, 16, 2))), [8, 24, 40, 56])


def test_resampling_a_ramp_keeps_it() -> None:
    """Values that rise with the place are the places of the new cells, between the outermost."""
    centres = (tf.constant([4.0, 12.0, 20.0]), tf.constant([2.0, 14.0]))
    rows, columns = np.meshgrid([4.0, 12, 20], [2.0, 14], indexing="ij")
    maps = tf.constant(np.stack([rows, columns], -1)[None], tf.float32)
    found = resample(maps, centres, (24, 16), tf.constant([6, 4])).numpy()[0]
    np.testing.assert_allclose(found[:, 0, 0], [4, 6, 10, 14, 18, 20], rtol=1e-6)
    np.testing.assert_allclose(found[0, :, 1], [2, 6, 10, 14], rtol=1e-6)


def test_resampling_to_larger_cells_averages() -> None:
    centres = (tf.range(8.0) + 0.5, tf.constant([0.5]))
    maps = tf.constant([1.0, 0, 1, 0, 1, 0, 1, 0])[None, :, None, None]
    found = resample(maps, centres, (8, 1), tf.constant([2, 1])).numpy().ravel()
    np.testing.assert_allclose(found, [0.5, 0.5], atol=0.05)
