"""Every kind of model that people bring, each proved by a value.

The names say which complaints about other packages they answer (tf-keras-vis, tf-explain, Keras).
"""

import re
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.layers import list_layers
from kgradcam.heatmaps.methods import AblationCAM, HiResCAM

RANDOM = np.random.default_rng(5)


def pictures(count: int = 2, *shape: int) -> np.ndarray:
    return RANDOM.normal(size=(count, *(shape or (12, 12, 3)))).astype(np.float32)


def backbone(name: str = "backbone", size: int | None = 12) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="last")(x)
    return keras.Model(inputs, x, name=name)


def head(x, classes: int = 3, activation: str | None = None):
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(classes, activation=activation, name="head")(x)


def cam_of(features: keras.Model, dense: keras.layers.Dense, images: np.ndarray) -> np.ndarray:
    """CAM by hand, which Grad-CAM equals on such a head: `[batch, classes, h, w]`."""
    maps = features(images).numpy()
    area = maps.shape[1] * maps.shape[2]
    return np.maximum(np.einsum("bhwk,kc->bchw", maps, dense.kernel.numpy()) / area, 0)


@pytest.fixture
def nested() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    return keras.Model(inputs, head(backbone()(inputs)))


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
    with pytest.raises(UserError, match=r"the structure {'image': \(None, 12, 12, 3\), 'vector'"):
        cam(batch["image"])


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_several_outputs(kind: str) -> None:
    """List and dict outputs: tf-keras-vis #48 #76 #96, aucmedi #233."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    pooled = keras.layers.GlobalAveragePooling2D()(features(inputs))
    breed = keras.layers.Dense(3, activation="softmax", name="breed")
    age = keras.layers.Dense(1, name="age")
    outputs = {"breed": breed(pooled), "age": age(pooled)}
    model = keras.Model(inputs, outputs if kind == "dict" else list(outputs.values()))
    images = pictures()
    with pytest.raises(UserError, match="2 outputs: output= must say which .*breed or age"):
        GradCAM(model)
    with pytest.raises(UserError, match="Received: 'bread'. Did you mean 'breed'"):
        GradCAM(model, output="bread")
    for output, dense in (("breed", breed), ("age", age), (1, age)):
        classes = list(range(dense.units))
        explanation = GradCAM(model, output=output)(images, classes=classes)
        expected = cam_of(features, dense, images)
        np.testing.assert_allclose(explanation.heatmaps, expected, atol=1e-6)


def test_one_sigmoid_unit_and_regression() -> None:
    """Binary and scalar heads: tf-keras-vis #64 #68 #78, keras-io #612."""
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    images = pictures()
    for activation in ("sigmoid", None):
        model = keras.Model(inputs, head(features(inputs), 1, activation))
        explanation = GradCAM(model)(images, classes=[0])
        expected = cam_of(features, model.get_layer("head"), images)
        np.testing.assert_allclose(explanation.heatmaps, expected, atol=1e-6)
        top = GradCAM(model)(images)
        assert top.classes == [[0], [0]]


def test_a_segmentation_map_by_the_score_of_a_region() -> None:
    """Structured outputs: Selvaraju et al., section 3; tf-explain #191."""
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    logits = keras.layers.Conv2D(4, 1, name="logits")
    model = keras.Model(inputs, keras.layers.Softmax()(logits(features(inputs))))
    with pytest.raises(UserError, match=r"must be \[batch, classes\]. .* give score="):
        GradCAM(model)
    region = np.zeros((12, 12), np.float32)
    region[2:6, 3:9] = 1 / 24

    plain = keras.Model(inputs, logits(features(inputs)))
    cam = GradCAM(
        plain,
        layer="backbone/last",
        score=lambda maps: tf.einsum("bhw,hw->b", maps[..., 2], region),
    )
    images = pictures()
    explanation = cam(images)
    # The score is a mean over the region; its gradient there is the kernel over 24, else 0.
    kernel = logits.kernel.numpy()[0, 0, :, 2]
    expected = np.maximum(features(images).numpy() @ kernel / 144, 0)
    np.testing.assert_allclose(explanation.heatmaps[:, 0], expected, atol=1e-6)
    scores = (plain(images).numpy()[..., 2] * region).sum(axis=(1, 2))
    np.testing.assert_allclose(explanation.scores[:, 0], scores, rtol=1e-4)
    assert np.isnan(explanation.probabilities).all()
    assert explanation.classes == []
    with pytest.raises(UserError, match="score= there are no classes"):
        cam(images, classes=[1])


def test_a_sequence_of_tokens_by_the_score_of_one_step() -> None:
    """Captioning: Selvaraju et al., section 7. Several scores make several heatmaps."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    pooled = keras.layers.GlobalAveragePooling2D()(features(inputs))
    words = keras.layers.LSTM(6, return_sequences=True)(keras.layers.RepeatVector(4)(pooled))
    model = keras.Model(inputs, keras.layers.Dense(9)(words))
    images = pictures()

    def words_said(tokens):
        return tf.stack([tokens[:, 1, 7], tokens[:, 3, 2]], axis=1)

    both = GradCAM(model, layer="backbone/last", score=words_said)(images)
    assert both.heatmaps.shape == (2, 2, 12, 12)
    for i, (step, word) in enumerate(((1, 7), (3, 2))):
        alone = GradCAM(model, layer="last", score=lambda y, s=step, w=word: y[:, s, w])(images)
        np.testing.assert_allclose(both.heatmaps[:, i], alone.heatmaps[:, 0], atol=1e-7)
    assert np.abs(both.heatmaps[:, 0] - both.heatmaps[:, 1]).max() > 1e-6
    with pytest.raises(UserError, match=r"score must map the outputs to \[batch\]"):
        GradCAM(model, layer="last", score=lambda tokens: tokens)


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


def test_a_transformer_through_reshape() -> None:
    """Tokens to a grid: pytorch-grad-cam #124 #257."""
    model, images = vision_transformer(), pictures(2, 16, 12, 3)
    tokens = GradCAM(model, layer="last_norm")(images, classes=[0])
    assert tokens.heatmaps.shape == (2, 1, 13)
    grid = GradCAM(
        model, layer="last_norm", reshape=lambda each: tf.reshape(each[:, 1:], (-1, 4, 3, 8))
    )(images, classes=[0])
    assert grid.heatmaps.shape == (2, 1, 4, 3)
    # The same tokens, behind the class token; alpha differs as its mean leaves that one out.
    hires = HiResCAM(model, layer="last_norm")(images, classes=[0]).heatmaps
    hires_grid = HiResCAM(
        model, layer="last_norm", reshape=lambda each: tf.reshape(each[:, 1:], (-1, 4, 3, 8))
    )(images, classes=[0]).heatmaps
    np.testing.assert_allclose(hires_grid, hires[:, :, 1:].reshape(2, 1, 4, 3), atol=1e-7)
    assert hires_grid.max() > 0


def test_a_missing_gradient_is_told_with_its_layer() -> None:
    """`None` gradients: tf-explain #102, tensorflow #62797, pytorch-grad-cam #393."""
    inputs = keras.Input((12, 12, 3))
    maps = backbone()(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(tf.stop_gradient)(maps))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    with pytest.raises(
        UserError, match=r"layer='backbone/last' has no gradient of the score: .*stop_gradient"
    ):
        GradCAM(model, layer="backbone/last")


def test_threads_and_explainers_do_not_disturb_one_another(nested: keras.Model) -> None:
    """Also while one of them traces; Keras is as it was in the end."""
    images, door = pictures(), keras.Operation.__call__
    expected = {
        layer: GradCAM(nested, layer=layer)(images, classes=[0, 1]).heatmaps
        for layer in ("backbone/first", "backbone/last")
    }
    failures: list[str] = []

    def explain(layer: str) -> None:
        for _ in range(3):
            heatmaps = GradCAM(nested, layer=layer)(images, classes=[0, 1]).heatmaps
            if not np.array_equal(heatmaps, expected[layer]):
                failures.append(layer)

    threads = [threading.Thread(target=explain, args=(layer,)) for layer in [*expected] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert keras.Operation.__call__ is door


def test_a_thousand_calls_leave_no_growth(nested: keras.Model) -> None:
    """Memory leaks and growing times: keras-vis #71, pytorch-grad-cam #78 #117."""
    import gc

    cam, images = GradCAM(nested, freeze=True), pictures(1)
    for _ in range(2):  # until it is frozen, and compared with the weights of now
        cam(images, classes=[0])
    gc.collect()
    before = len(gc.get_objects())
    for i in range(1000):
        cam(images, classes=[i % 3])
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert cam.trace_count == 2


@pytest.mark.parametrize("method", [GradCAM, AblationCAM])
def test_channels_first(method: type[GradCAM]) -> None:
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


def test_predict_tells_what_a_call_would(nested: keras.Model) -> None:
    cam, images = GradCAM(nested), pictures(3)
    for how in (
        {"classes": [0, [1, 2]]},
        {"class_per_image": [2, 0, 1]},
        {"classes_per_image": [[0, 1], [1, 2], [2, 0]]},
        {},
    ):
        explanation = cam(images, **how)
        scores, probabilities = cam.predict(images, **how)
        np.testing.assert_allclose(scores, explanation.scores, rtol=1e-5)
        np.testing.assert_allclose(probabilities, explanation.probabilities, rtol=1e-5)
    assert cam.trace_count == 2
