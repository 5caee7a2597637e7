"""Grad-CAM against hand-computed nets, its analytic identities, and the model left as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM


def gap_model(activation: str | None = "softmax", size: int | None = 12) -> keras.Model:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, activation=activation, name="head"),
        ]
    )


def deep_model() -> keras.Model:
    """Nonlinear between the explained layer and the score, so that gradients vary over space."""
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="tanh", name="early"),
            keras.layers.Conv2D(6, 3, activation="tanh", name="late"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def pictures(count: int, height: int = 12, width: int = 12) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, height, width, 3)).astype(np.float32)


def test_a_hand_computed_net() -> None:
    # Two channels, x and 2x, flattened into y = 3 * (first channel's corner) - 1 * (second's sum).
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Conv2D(2, 1, use_bias=False, name="maps"),
            keras.layers.Flatten(),
            keras.layers.Dense(1, use_bias=False),
        ]
    )
    model.get_layer("maps").set_weights([np.array([[[[1.0, 2.0]]]])])
    model.layers[-1].set_weights([np.array([[3.0], [-1], [0], [-1], [0], [-1], [0], [-1]])])
    image = np.array([[[[1.0], [-2.0]], [[3.0], [-4.0]]]])
    explanation = GradCAM(model, layer="maps")(image, classes=[0])
    # alpha = (3/4, -1); the map is 3/4 x - 1 * 2x = -1.25 x, then ReLU.
    np.testing.assert_allclose(explanation.heatmaps, [[[[0, 2.5], [0, 5.0]]]])
    np.testing.assert_allclose(explanation.scores, [[3 * 1 - 2 * (1 - 2 + 3 - 4)]])


def test_equals_cam_on_a_gap_and_dense_head() -> None:
    """Selvaraju et al. 2020, section 3.2: there H W alpha_k is the weight w_k of CAM."""
    model = gap_model()
    images = pictures(3)
    explanation = GradCAM(model)(images, classes=[0, 1, 2, 3])
    feature_maps = model.get_layer("conv")(images).numpy()
    weights = model.get_layer("head").kernel.numpy()
    cam = np.maximum(np.einsum("bhwk,kc->bchw", feature_maps, weights) / 144, 0)
    assert cam.max() > 0.001
    np.testing.assert_allclose(explanation.heatmaps, cam, atol=1e-6)


@pytest.mark.parametrize("layer", ["early", "late"])
def test_channel_weights_are_the_finite_differences_of_the_score(layer: str) -> None:
    """alpha_k is how fast the score grows when channel k grows evenly, by its definition."""
    model = deep_model()
    images = pictures(1, 10, 8)
    index = [each.name for each in model.layers].index(layer)
    feature_maps = images
    for each in model.layers[: index + 1]:
        feature_maps = each(feature_maps)
    feature_maps = feature_maps.numpy().astype(np.float64)

    def score(maps: np.ndarray) -> float:
        for each in model.layers[index + 1 :]:
            maps = each(maps)
        return float(maps[0, 2])

    step, area = 0.01, feature_maps.shape[1] * feature_maps.shape[2]
    alphas = []
    for k in range(feature_maps.shape[-1]):
        shift = step * np.eye(feature_maps.shape[-1])[k]
        alphas.append(
            (score(feature_maps + shift) - score(feature_maps - shift)) / (2 * step * area)
        )
    expected = np.maximum(feature_maps[0] @ np.array(alphas), 0)
    explanation = GradCAM(model, layer=layer)(images, classes=[2])
    np.testing.assert_allclose(explanation.heatmaps[0, 0], expected, atol=2e-4)


def test_a_batch_equals_a_loop_and_classes_equal_single_ones() -> None:
    """One image at a time: pytorch-grad-cam #18 #322, torch-cam #79."""
    cam, images = GradCAM(deep_model()), pictures(4, 10, 8)
    together = cam(images, classes=[0, 1, 2])
    for i in range(4):
        for c in range(3):
            alone = cam(images[i : i + 1], classes=[c])
            np.testing.assert_allclose(
                together.heatmaps[i, c], alone.heatmaps[0, 0], rtol=1e-4, atol=1e-6
            )


def test_one_class_per_image() -> None:
    cam, images = GradCAM(deep_model()), pictures(3, 10, 8)
    every = cam(images, classes=[0, 1, 2])
    chosen = cam(images, class_per_image=[2, 0, 1])
    np.testing.assert_allclose(
        chosen.heatmaps[:, 0], every.heatmaps[[0, 1, 2], [2, 0, 1]], atol=1e-6
    )
    assert chosen.classes == [[2], [0], [1]]


def test_the_top_class_is_the_default() -> None:
    model, images = deep_model(), pictures(5, 10, 8)
    top = model(images).numpy().argmax(axis=1).tolist()
    cam = GradCAM(model)
    explanation = cam(images)
    assert explanation.classes == [[index] for index in top]
    np.testing.assert_array_equal(explanation.heatmaps, cam(images, class_per_image=top).heatmaps)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_head_is_explained_at_its_logit(activation: str) -> None:
    linear, images = gap_model(None), pictures(2)
    activated = gap_model(activation)
    as_layer = keras.Sequential([linear, keras.layers.Activation(activation)])
    expected = GradCAM(linear)(images, classes=[0, 1, 2, 3])
    for model in (activated, as_layer):
        explanation = GradCAM(model)(images, classes=[0, 1, 2, 3])
        np.testing.assert_allclose(explanation.scores, linear(images), rtol=1e-6)
        np.testing.assert_allclose(explanation.heatmaps, expected.heatmaps, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(explanation.probabilities, model(images), rtol=1e-5)


def test_a_saturated_softmax_still_has_a_heatmap() -> None:
    """Zero gradients at a confidence of 1: keras #5881, tf-explain #54, tensorflow #56657."""
    model = gap_model()
    model.get_layer("head").bias.assign([60.0, 0, 0, 0])
    images = pictures(2)
    assert (model(images).numpy()[:, 0] == 1.0).all()
    assert GradCAM(model)(images, classes=[0]).heatmaps.max() > 0.001


def test_a_group_scores_the_log_sum_exp_of_its_logits() -> None:
    model, images = gap_model(None), pictures(2)
    explanation = GradCAM(model)(images, classes=[[0, 2], 1])
    logits = model(images).numpy()
    expected = np.log(np.exp(logits[:, 0]) + np.exp(logits[:, 2]))
    np.testing.assert_allclose(explanation.scores, np.stack([expected, logits[:, 1]], 1), rtol=1e-5)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        explanation.probabilities[:, 0], softmax[:, 0] + softmax[:, 2], rtol=1e-5
    )


def test_the_probability_of_a_sigmoid_group_is_that_of_any() -> None:
    model, images = gap_model("sigmoid"), pictures(2)
    outputs = model(images).numpy()
    explanation = GradCAM(model)(images, classes=[[1, 3]])
    expected = 1 - (1 - outputs[:, 1]) * (1 - outputs[:, 3])
    np.testing.assert_allclose(explanation.probabilities[:, 0], expected, rtol=1e-5)


def test_it_is_traced_once_whatever_comes() -> None:
    """Retracing at every call: PracticalDL #41, innvestigate #129."""
    cam = GradCAM(gap_model(size=None))
    for height, width, batch in [(8, 8, 1), (8, 8, 3), (9, 13, 2), (20, 7, 1)]:
        images = np.zeros((batch, height, width, 3))
        cam(images)
        cam(images.astype(np.uint8), classes=[0])
        cam(images, classes=[1, [2, 3], 0])
        cam(images, class_per_image=[1] * batch)
    assert cam.trace_count == 1


def test_the_model_is_left_as_it_was() -> None:
    model = gap_model()
    model.compile(optimizer="sgd", loss="categorical_crossentropy")
    config, weights = model.get_config(), model.get_weights()
    door = keras.Operation.__call__
    GradCAM(model)(pictures(2))
    assert keras.Operation.__call__ is door
    assert model.get_config() == config
    assert model.compiled
    assert model.layers[-1].activation is keras.activations.softmax
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_explainer_follows_weights_that_change() -> None:
    model, images = gap_model(), pictures(1)
    cam = GradCAM(model)
    before = cam(images, classes=[0]).heatmaps
    model.get_layer("head").kernel.assign(2 * model.get_layer("head").kernel)
    np.testing.assert_allclose(cam(images, classes=[0]).heatmaps, 2 * before, rtol=1e-5)


def test_preprocessing_is_a_part_of_the_function() -> None:
    model, images = gap_model(), pictures(2)
    cam = GradCAM(model, preprocess=lambda x: x / 2 - 1)
    np.testing.assert_allclose(
        cam(images, classes=[1]).heatmaps,
        GradCAM(model)(images / 2 - 1, classes=[1]).heatmaps,
        atol=1e-6,
    )


def test_xla_gives_the_same() -> None:
    model, images = deep_model(), pictures(2, 10, 8)
    plain = GradCAM(model)(images, classes=[0, 2])
    compiled = GradCAM(model, jit_compile=True)(images, classes=[0, 2])
    np.testing.assert_allclose(compiled.heatmaps, plain.heatmaps, rtol=1e-4, atol=1e-6)


def test_a_subclassed_model_is_explained_from_its_first_call() -> None:
    class Plain(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv")
            self.head = keras.layers.Dense(4)

        def call(self, images):
            return tf.nn.softmax(self.head(tf.reduce_mean(self.conv(images), axis=[1, 2])))

    model, images = Plain(), pictures(2)
    model(images)
    reference = gap_model()
    model.set_weights(reference.get_weights())
    cam = GradCAM(model)
    explanation = cam(images, classes=[0, 1])
    assert cam.layer == "conv"
    np.testing.assert_allclose(
        explanation.heatmaps, GradCAM(reference)(images, classes=[0, 1]).heatmaps, atol=1e-6
    )


def test_a_map_without_positive_evidence_is_zeros() -> None:
    """All-zero, NaN and all-red maps: torch-cam #186, pytorch-grad-cam #108, tf-explain #186."""
    model = gap_model()
    head = model.get_layer("head")
    head.kernel.assign(-tf.abs(head.kernel))
    explanation = GradCAM(model)(pictures(1), classes=[0])
    np.testing.assert_array_equal(explanation.heatmaps, np.zeros((1, 1, 12, 12)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cam: cam(np.zeros((1, 9, 9, 3))), r"shape \(None, 12, 12, 3\)"),
        (lambda cam: cam(np.zeros((12, 12, 3))), r"Received: \(12, 12, 3\)"),
        (lambda cam: cam(pictures(1), classes=[4]), "0 to 3. Received: 4"),
        (lambda cam: cam(pictures(1), classes=[-1]), "0 to 3. Received: -1"),
        (lambda cam: cam(pictures(1), classes=[[]]), r"Received: \[\]"),
        (lambda cam: cam(pictures(1), classes=["dog"]), "Received: 'dog'"),
        (lambda cam: cam(pictures(2), class_per_image=[1]), "each of the 2 images. Received: 1"),
        (
            lambda cam: cam(pictures(1), classes=[1], class_per_image=[1]),
            "one of classes, class_per_image and",
        ),
    ],
)
def test_wrong_calls_are_told_plainly(call, message) -> None:
    with pytest.raises(UserError, match=message):
        call(GradCAM(gap_model()))


def test_a_layer_beside_the_path_is_named() -> None:
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(2, 3, name="path")(inputs)
    keras.layers.Conv2D(2, 3, name="aside")(inputs)
    aside = keras.layers.Conv2D(2, 3, name="stopped")(inputs)
    stopped = keras.layers.Lambda(tf.stop_gradient)(aside)
    pooled = keras.layers.GlobalAveragePooling2D()
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled(maps) + pooled(stopped)))
    with pytest.raises(UserError, match="layer='stopped' has no gradient of the score"):
        GradCAM(model, layer="stopped")
    with pytest.raises(UserError, match="layer='pth' is no layer .* Did you mean 'path'"):
        GradCAM(model, layer="pth")


def test_a_model_without_feature_maps_is_refused() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    with pytest.raises(UserError, match="no layer with a feature map"):
        GradCAM(model)


def beside_the_mean(maps: keras.KerasTensor) -> keras.KerasTensor:
    mean = keras.layers.GlobalAveragePooling2D()(maps)
    return keras.layers.Concatenate()([mean, keras.layers.Flatten()(maps)])


@pytest.mark.parametrize(
    "after",
    [
        keras.layers.GlobalAveragePooling2D(),
        lambda maps: keras.layers.Flatten()(
            keras.layers.GlobalAveragePooling2D(keepdims=True)(maps)
        ),
        lambda maps: keras.layers.GlobalAveragePooling2D()(maps) ** 2,
        beside_the_mean,
        lambda maps: keras.ops.mean(maps, axis=(1, 2)) + keras.ops.max(maps, axis=(1, 2)),
        lambda maps: keras.ops.mean(keras.ops.mean(maps, axis=2), axis=1),
        lambda maps: keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(maps - 0.2)),
    ],
    ids=["mean", "keepdims", "curved", "beside", "beside max", "in two steps", "not next"],
)
def test_alphas_are_the_means_of_the_gradients_wherever_the_network_takes_a_mean(after) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 10, 3))
    maps = keras.layers.Conv2D(5, 3, name="maps")(inputs)
    hidden = keras.layers.Dense(6, activation="tanh")(after(maps))
    model = keras.Model(inputs, keras.layers.Dense(4)(hidden))
    images = pictures(3, 12, 10)
    first = keras.Model(inputs, maps)
    with tf.GradientTape() as tape:
        feature_maps = first(images)
        tape.watch(feature_maps)
        rest = after(feature_maps)
        score = model.layers[-1](model.layers[-2](rest))[:, 2]
    gradients = tape.gradient(score, feature_maps).numpy()
    alphas = gradients.mean(axis=(1, 2), keepdims=True)
    expected = np.maximum((alphas * feature_maps.numpy()).sum(axis=-1), 0)
    assert expected.max() > 1e-4
    found = GradCAM(model, "maps")(images, classes=[2, 1]).heatmaps[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
