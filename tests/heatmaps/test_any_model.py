"""Every kind of model that people bring, each proved by a value.

The names say which complaints about other packages they answer (tf-keras-vis, tf-explain, Keras).
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import backbone, cam_of, head, pictures

from kgradcam.errors import UserError
from kgradcam.heatmaps.default_layer import list_layers
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import AblationCAM, HiResCAM


def test_a_backbone_inside_a_functional_model(nested: keras.Model) -> None:
    """Graph disconnected: tf-keras-vis #36 #48 #63 #71 #84, tf-explain #116 #165."""
    images = pictures()
    cam = GradCAM(nested)
    assert cam.layer == "backbone/last"
    expected = cam_of(nested.get_layer("backbone"), nested.get_layer("head"), images)
    np.testing.assert_allclose(cam(images, classes=[0, 1, 2]).heatmaps, expected, atol=1e-6)


def test_a_backbone_two_levels_deep_inside_sequentials() -> None:
    """Nested Sequential models: keras #16123, keras-io #1903."""
    keras.utils.set_random_seed(0)
    inner = backbone("inner")
    augment = keras.layers.RandomFlip("horizontal")
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.Sequential([augment, keras.layers.Rescaling(0.5), inner], name="outer"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="head"),
            keras.layers.Softmax(),
        ]
    )
    images = pictures()
    cam = GradCAM(model)
    assert cam.layer == "outer/inner/last"
    expected = cam_of(inner, model.get_layer("head"), images / 2)
    np.testing.assert_allclose(cam(images, classes=[0, 1, 2]).heatmaps, expected, atol=1e-6)


def test_a_shared_backbone_called_twice() -> None:
    """Siamese networks: keras #15647. Each call is a layer of its own."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((12, 12, 3), name=name) for name in ("left", "right")]
    shared, pool = backbone("shared"), keras.layers.GlobalAveragePooling2D()
    left, right = (pool(shared(each)) for each in inputs)
    dense = keras.layers.Dense(2)
    model = keras.Model(inputs, dense(keras.layers.concatenate([left, right])))
    one, other = pictures(), pictures()
    weights = dense.kernel.numpy()
    expected = []
    for images, part in ((one, weights[:5]), (other, weights[5:])):
        maps = np.einsum("bhwk,kc->bchw", shared(images).numpy(), part) / 144
        expected.append(np.maximum(maps, 0))
    found = [
        GradCAM(model, layer=path)([one, other], classes=[0, 1]).heatmaps
        for path in ("shared/last", "shared/last#2")
    ]
    # Keras runs the two in an order of its own.
    if np.abs(found[0] - expected[0]).max() > 1e-6:
        found.reverse()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_saved_and_loaded_model(nested: keras.Model, tmp_path: Path) -> None:
    nested.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = pictures()
    np.testing.assert_array_equal(
        GradCAM(loaded)(images, classes=[1]).heatmaps, GradCAM(nested)(images, classes=[1]).heatmaps
    )


class Subclassed(keras.Model):
    """`call` alone, a custom block, a softmax as a function."""

    class Block(keras.layers.Layer):
        def __init__(self, features: keras.Model) -> None:
            super().__init__(name="block")
            self.features = features

        def call(self, images):
            return self.features(images)

    def __init__(self, features: keras.Model) -> None:
        super().__init__()
        self.block = self.Block(features)
        self.dense = keras.layers.Dense(3, name="head")

    def call(self, images, training=None):
        return tf.nn.softmax(self.dense(tf.reduce_mean(self.block(images), axis=[1, 2])))


def test_a_subclassed_model() -> None:
    """No `.inputs`, no graph: keras #18634, tensorflow #72915."""
    features = backbone(size=None)
    model, images = Subclassed(features), pictures()
    model(images)
    cam = GradCAM(model)
    assert cam.layer is None
    explanation = cam(images, classes=[0, 1, 2])
    assert cam.layer == "block/backbone/last"
    expected = cam_of(features, model.dense, images)
    np.testing.assert_allclose(explanation.heatmaps, expected, atol=1e-6)
    cam(pictures(3, 20, 16, 3))
    assert cam.trace_count == 1


def test_a_model_that_was_never_called() -> None:
    """Its weights are made at the first call, and not inside the trace."""
    features = backbone(size=None)
    model, images = Subclassed(features), pictures()
    cam = GradCAM(model)
    explanation = cam(images, classes=[0, 1, 2])
    assert (cam.layer, cam.trace_count) == ("block/backbone/last", 1)
    expected = cam_of(features, model.dense, images)
    np.testing.assert_allclose(explanation.heatmaps, expected, atol=1e-6)
    lazy = keras.Sequential(
        [keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    )
    assert GradCAM(lazy)(images, classes=[0]).heatmaps.shape == (2, 1, 10, 10)


def test_an_image_and_a_vector() -> None:
    """Multi-modal models: Selvaraju et al., section 8 (visual question answering)."""
    keras.utils.set_random_seed(0)
    image, vector = keras.Input((12, 12, 3), name="image"), keras.Input((4,), name="vector")
    features = backbone()
    gate = keras.layers.Dense(5, activation="sigmoid", name="gate")(vector)
    pooled = keras.layers.GlobalAveragePooling2D()(features(image))
    dense = keras.layers.Dense(2, name="head")
    outputs = dense(keras.layers.multiply([pooled, gate]))
    model = keras.Model({"image": image, "vector": vector}, outputs)
    batch = {"image": pictures(), "vector": pictures(2, 4)}
    cam = GradCAM(model)
    assert cam.layer == "backbone/last"
    gates = model.get_layer("gate")(batch["vector"]).numpy()
    expected = np.einsum("bhwk,bk,kc->bchw", features(batch["image"]), gates, dense.kernel.numpy())
    np.testing.assert_allclose(
        cam(batch, classes=[0, 1]).heatmaps, np.maximum(expected / 144, 0), atol=1e-6
    )
    with pytest.raises(UserError, match=r"2 inputs {'image': \(None, 12, 12, 3\), 'vector'"):
        cam(batch["image"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision(dtype: str) -> None:
    """Zero gradients and dtype errors: tf-keras-vis #41 #43 #45, keras #15479."""

    def build(policy: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(policy)
        try:
            inputs = keras.Input((12, 12, 3))
            return keras.Model(inputs, head(backbone()(inputs), activation="softmax"))
        finally:
            keras.config.set_dtype_policy("float32")

    images = pictures()
    exact = GradCAM(build("float32"))(images, classes=[0, 1, 2]).heatmaps
    mixed = GradCAM(build(f"mixed_{dtype}"))(images, classes=[0, 1, 2]).heatmaps
    assert mixed.dtype == np.float32
    tolerance = {"float16": 0.002, "bfloat16": 0.03}[dtype]
    np.testing.assert_allclose(mixed, exact, atol=tolerance * exact.max())


def test_gradients_too_small_for_float16_do_not_vanish() -> None:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((64, 64, 3))
        model = keras.Model(inputs, head(backbone(size=64)(inputs)))
    finally:
        keras.config.set_dtype_policy("float32")
    dense = model.get_layer("head")
    dense.kernel.assign(tf.abs(dense.kernel) * 1e-4)  # over 4,096 places: below 6e-8
    assert GradCAM(model)(pictures(1, 64, 64, 3), classes=[0]).heatmaps.max() > 0


@pytest.mark.parametrize(
    ("shape", "conv", "pool"),
    [
        ((20, 3), keras.layers.Conv1D, keras.layers.GlobalAveragePooling1D),
        ((6, 7, 8, 3), keras.layers.Conv3D, keras.layers.GlobalAveragePooling3D),
    ],
)
def test_series_and_volumes(shape, conv, pool) -> None:
    """1-D and 3-D convolutions: tf-keras-vis #79."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(shape),
            conv(4, 3, padding="same", activation="relu", name="conv"),
            pool(),
            keras.layers.Dense(2, name="head"),
        ]
    )
    batch = pictures(2, *shape)
    explanation = GradCAM(model)(batch, classes=[0, 1])
    assert explanation.heatmaps.shape == (2, 2, *shape[:-1])
    maps = model.get_layer("conv")(batch).numpy()
    weights = model.get_layer("head").kernel.numpy() / np.prod(shape[:-1])
    expected = np.moveaxis(np.maximum(maps @ weights, 0), -1, 1)
    np.testing.assert_allclose(explanation.heatmaps, expected, atol=1e-6)


def vision_transformer() -> keras.Model:
    """4x4 patches of a 16x12 picture make 4x3 tokens, behind a class token."""
    keras.utils.set_random_seed(0)

    class ClassToken(keras.layers.Layer):
        def build(self, shape):
            self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")

        def call(self, tokens):
            token = tf.repeat(tf.cast(self.token, tokens.dtype), tf.shape(tokens)[0], axis=0)
            return tf.concat([token, tokens], axis=1)

    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(8, 4, strides=4, name="patches")(inputs)
    x = ClassToken(name="class_token")(keras.layers.Reshape((12, 8))(x))
    normal = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.add([x, keras.layers.MultiHeadAttention(2, 4)(normal, normal)])
    x = keras.layers.LayerNormalization(name="last_norm")(x)
    mixed = keras.layers.MultiHeadAttention(2, 4, name="mix")(x, x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(mixed[:, 0]))


def test_a_transformer_through_reshape(caplog) -> None:
    """Tokens to a grid: pytorch-grad-cam #124 #257."""
    model, images = vision_transformer(), pictures(2, 16, 12, 3)
    tokens = GradCAM(model, layer="last_norm", reshape=tf.identity)(images, classes=[0])
    assert tokens.heatmaps.shape == (2, 1, 13)
    grid = GradCAM(
        model, layer="last_norm", reshape=lambda each: tf.reshape(each[:, 1:], (-1, 4, 3, 8))
    )(images, classes=[0])
    assert grid.heatmaps.shape == (2, 1, 4, 3)
    for shape, message in (
        ((-1, 5, 3, 8), r"reshape= fails .* requires a multiple of 120$"),
        (
            (-1, 8),
            r"must return \[batch, height, width, channels\] of layer='last_norm', \(None, 13",
        ),
    ):
        with pytest.raises(UserError, match=message):
            GradCAM(model, "last_norm", reshape=partial(tf.reshape, shape=shape))(images)
    # The same tokens, behind the class token; alpha differs as its mean leaves that one out.
    hires = HiResCAM(model, layer="last_norm", reshape=tf.identity)(images, classes=[0]).heatmaps
    hires_grid = HiResCAM(
        model, layer="last_norm", reshape=lambda each: tf.reshape(each[:, 1:], (-1, 4, 3, 8))
    )(images, classes=[0]).heatmaps
    np.testing.assert_allclose(hires_grid, hires[:, :, 1:].reshape(2, 1, 4, 3), atol=1e-7)
    assert hires_grid.max() > 0
    caplog.clear()
    zeros = GradCAM(model, layer="mix")(images, classes=[0]).heatmaps
    assert zeros.max() == 0
    assert "single places of layer='mix/" in caplog.text
    # Without reshape= the grid is that of the patch embedding.
    by_default = HiResCAM(model, layer="last_norm")(images, classes=[0]).heatmaps
    np.testing.assert_array_equal(by_default, hires_grid)


@pytest.mark.parametrize("method", [GradCAM, AblationCAM])
def test_channels_first(method: Callable[..., GradCAM]) -> None:
    """Activations and normalizations do not say where their channels are; the layer before does."""

    def build(data_format: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        first = data_format == "channels_first"
        return keras.Sequential(
            [
                keras.Input((3, 12, 10) if first else (12, 10, 3)),
                keras.layers.Conv2D(4, 3, data_format=data_format, name="conv"),
                keras.layers.BatchNormalization(axis=1 if first else -1),
                keras.layers.Activation("relu", name="maps"),
                keras.layers.GlobalAveragePooling2D(data_format=data_format),
                keras.layers.Dense(2),
            ]
        )

    images = pictures(2, 12, 10, 3)
    expected = method(build("channels_last"))(images, classes=[0, 1])
    model = build("channels_first")
    cam = method(model)
    assert cam.layer == "maps"
    assert list_layers(model)[1].shape == (10, 8, 4)
    found = cam(images.transpose(0, 3, 1, 2), classes=[0, 1])
    assert expected.heatmaps.max() > 0
    np.testing.assert_allclose(found.heatmaps, expected.heatmaps, atol=1e-6)


def test_an_exported_backbone(tmp_path: Path) -> None:
    """A SavedModel is sealed: its output is a feature map, its inside is not."""
    keras.utils.set_random_seed(0)
    features = backbone()
    features.export(tmp_path / "features", verbose=False)
    sealed = keras.layers.TFSMLayer(tmp_path / "features", call_endpoint="serve", name="sealed")
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, head(sealed(inputs)))
    cam, images = GradCAM(model), pictures()
    assert cam.layer == "sealed"
    expected = cam_of(features, model.get_layer("head"), images)
    np.testing.assert_allclose(cam(images, classes=[0, 1, 2]).heatmaps, expected, atol=1e-6)

    model.export(tmp_path / "whole", verbose=False)
    whole = keras.layers.TFSMLayer(tmp_path / "whole", call_endpoint="serve")
    with pytest.raises(UserError, match="no layer with a feature map"):
        GradCAM(keras.Sequential([keras.Input((12, 12, 3)), whole]))


def test_a_sum_of_branches_is_a_feature_map() -> None:
    """ConvNeXt adds its branches with a plain +, and no layer holds the sum."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="stem")(inputs)
    summed = x + keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="branch")(x)
    model = keras.Model(inputs, head(summed))
    cam, images = GradCAM(model), pictures()
    assert re.fullmatch(r"add(_\d+)?", cam.layer)
    expected = cam_of(keras.Model(inputs, summed), model.get_layer("head"), images)
    np.testing.assert_allclose(cam(images, classes=[0, 1, 2]).heatmaps, expected, atol=1e-6)


def test_tokens_of_two_maps_have_no_grid_in_common() -> None:
    """The levels of a pyramid as one sequence, as in detectors with deformable attention."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 12, 3))
    fine = keras.layers.Conv2D(8, 4, strides=4, name="fine")(image)
    coarse = keras.layers.Conv2D(8, 2, strides=2, padding="same", name="coarse")(fine)
    rows = [keras.layers.Reshape((-1, 8))(each) for each in (fine, coarse)]
    both = keras.layers.LayerNormalization(name="both")(keras.layers.concatenate(rows, axis=1))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(both)))
    images = pictures(2, 16, 12, 3)
    assert list_layers(model)[1].path == "fine"
    assert GradCAM(model)(images, classes=[0]).heatmaps.shape == (2, 1, 4, 3)
    assert GradCAM(model, layer="both")(images, classes=[0]).heatmaps.shape == (2, 1, 12 + 4)
