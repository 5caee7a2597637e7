"""The logits and probabilities of heads in many spellings, against those computed by hand."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import backbone, cam_of, pictures

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM

ops, layers = keras.ops, keras.layers


def network(end: Callable[[Any], Any], units: int = 3, factor: float = 30.0) -> tuple[Any, ...]:
    """A network with `end` behind its logits, which are large, and the network up to the logits."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 3))
    features = backbone()
    dense = layers.Dense(units, name="head")
    logits = dense(layers.GlobalAveragePooling2D()(features(inputs)))
    dense.kernel.assign(dense.kernel * factor)
    return keras.Model(inputs, end(logits)), keras.Model(inputs, logits), features, dense


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def share(values):
    return values / ops.sum(values, axis=-1, keepdims=True)


def by_hand(z):
    return share(ops.exp(z))


def stable_by_hand(z):
    return by_hand(z - ops.max(z, axis=-1, keepdims=True))


SOFTMAXES: dict[str, Callable[[Any], Any]] = {
    "layer": lambda z: layers.Softmax()(z),
    "function": ops.softmax,
    "reshape": lambda z: layers.Reshape((3,))(ops.softmax(layers.Reshape((1, 1, 3))(z))),
    "flatten": lambda z: layers.Flatten()(ops.softmax(ops.expand_dims(z, 1))),
    "squeeze": lambda z: ops.squeeze(ops.softmax(ops.expand_dims(z, 1)), axis=1),
    "cast": lambda z: ops.cast(ops.softmax(ops.cast(z, "float64")), "float32"),
    "times one": lambda z: ops.softmax(z) * 1.0,
    "clip": lambda z: ops.clip(ops.softmax(z), 1e-7, 1 - 1e-7),
    "by hand": by_hand,
    "stable": stable_by_hand,
    "exp(log_softmax)": lambda z: ops.exp(ops.log_softmax(z)),
    "normalized again": lambda z: share(ops.softmax(z)),
}


@pytest.mark.parametrize("end", SOFTMAXES)
def test_a_softmax_in_any_spelling_is_explained_at_its_logit(end: str) -> None:
    model, before, features, dense = network(SOFTMAXES[end])
    images = pictures()
    explanation = GradCAM(model)(images, classes=[0, 1, 2])
    np.testing.assert_allclose(explanation.scores, before(images), rtol=1e-4)
    np.testing.assert_allclose(explanation.probabilities, model(images), rtol=1e-4)
    expected = cam_of(features, dense, images)
    np.testing.assert_allclose(explanation.heatmaps, expected, rtol=1e-4, atol=1e-6)


LOG_SOFTMAXES: dict[str, Callable[[Any], Any]] = {
    "function": ops.log_softmax,
    "activation": lambda z: layers.Activation("log_softmax")(z),
    "log of softmax": lambda z: ops.log(ops.softmax(z)),
    "logsumexp": lambda z: z - ops.logsumexp(z, axis=-1, keepdims=True),
    "by hand": lambda z: z - ops.log(ops.sum(ops.exp(z), axis=-1, keepdims=True)),
}


@pytest.mark.parametrize("end", LOG_SOFTMAXES)
def test_a_log_softmax_is_explained_at_its_logit(end: str) -> None:
    model, before, features, dense = network(LOG_SOFTMAXES[end])
    images = pictures()
    explanation = GradCAM(model)(images, classes=[0, [1, 2]])
    logits = before(images).numpy()
    np.testing.assert_allclose(explanation.scores[:, 0], logits[:, 0], rtol=1e-4)
    probabilities = softmax(logits)
    np.testing.assert_allclose(explanation.probabilities[:, 0], probabilities[:, 0], rtol=1e-4)
    np.testing.assert_allclose(
        explanation.probabilities[:, 1], probabilities[:, 1:].sum(axis=1), rtol=1e-4
    )
    expected = cam_of(features, dense, images)[:, 0]
    np.testing.assert_allclose(explanation.heatmaps[:, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "end", [lambda z: ops.softmax(z / 4.0), lambda z: share(ops.softmax(z) ** 0.25)]
)
def test_a_temperature_scales_the_logits(end: Callable[[Any], Any]) -> None:
    model, before, _, _ = network(end, factor=5.0)
    images = pictures()
    explanation = GradCAM(model)(images, classes=[0, 1, 2])
    np.testing.assert_allclose(explanation.scores, before(images).numpy() / 4, rtol=1e-4)
    np.testing.assert_allclose(explanation.probabilities, model(images), rtol=1e-4)


SIGMOIDS: dict[str, Callable[[Any], Any]] = {
    "layer": lambda z: layers.Activation("sigmoid")(z),
    "flatten": lambda z: layers.Flatten()(ops.sigmoid(ops.expand_dims(z, 1))),
    "by hand": lambda z: 1.0 / (1.0 + ops.exp(-z)),
    "clip": lambda z: ops.clip(ops.sigmoid(z), 1e-7, 1 - 1e-7),
    "concatenated": lambda z: ops.concatenate([ops.sigmoid(z[:, :1]), ops.sigmoid(z[:, 1:])], -1),
}


@pytest.mark.parametrize("end", SIGMOIDS)
def test_sigmoids_are_explained_at_their_logits(end: str) -> None:
    model, before, features, dense = network(SIGMOIDS[end])
    images = pictures()
    explanation = GradCAM(model)(images, classes=[0, 1, 2, [0, 2]])
    np.testing.assert_allclose(explanation.scores[:, :3], before(images), rtol=1e-4)
    own = model(images).numpy()
    np.testing.assert_allclose(explanation.probabilities[:, :3], own, rtol=1e-4)
    either = 1 - (1 - own[:, 0]) * (1 - own[:, 2])
    np.testing.assert_allclose(explanation.probabilities[:, 3], either, rtol=1e-4)
    expected = cam_of(features, dense, images)
    np.testing.assert_allclose(explanation.heatmaps[:, :3], expected, rtol=1e-4, atol=1e-6)


OWN: dict[str, Callable[[Any], Any]] = {
    "ensemble": lambda z: layers.Average()([ops.softmax(z), ops.softmax(2 * z)]),
    "two softmaxes": lambda z: ops.concatenate([ops.softmax(z[:, :2]), ops.softmax(z)], -1),
    "objectness": lambda z: ops.sigmoid(z) * ops.sigmoid(z[:, :1]),
    "real clip": lambda z: ops.clip(ops.softmax(z), 0.2, 0.6),
    "hard sigmoid": lambda z: ops.hard_sigmoid(z),
    "blocks": lambda z: ops.reshape(
        ops.softmax(ops.reshape(ops.concatenate([z, z[:, ::-1]], -1), (-1, 3, 2))), (-1, 6)
    ),
}


@pytest.mark.parametrize("end", OWN)
def test_other_probabilities_are_the_models_own_numbers(end: str) -> None:
    model, *_ = network(OWN[end], factor=1.0)
    images = pictures()
    explanation = GradCAM(model)(images, classes=range(3))
    own = model(images).numpy()[:, :3]
    np.testing.assert_allclose(explanation.scores, own, rtol=1e-5)
    np.testing.assert_allclose(explanation.probabilities, own, rtol=1e-5)


def test_the_gradient_of_an_ensemble_is_that_of_its_output() -> None:
    model, _, features, dense = network(OWN["ensemble"], factor=1.0)
    images = pictures()
    maps = tf.constant(features(images))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = dense(tf.reduce_mean(maps, axis=[1, 2]))
        score = (tf.nn.softmax(logits) + tf.nn.softmax(2 * logits))[:, 1] / 2
    alphas = tf.reduce_mean(tape.gradient(score, maps), axis=[1, 2], keepdims=True)
    expected = np.maximum(tf.reduce_sum(alphas * maps, axis=-1), 0)
    found = GradCAM(model)(images, classes=[1]).heatmaps[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("end", [lambda z: z, ops.relu, ops.tanh, ops.softplus])
def test_a_regression_has_no_probability(end: Callable[[Any], Any]) -> None:
    model, *_ = network(end, units=1)
    images = pictures()
    explanation = GradCAM(model)(images, classes=[0])
    np.testing.assert_allclose(explanation.scores, model(images), rtol=1e-5)
    assert np.isnan(explanation.probabilities).all()


def test_logits_without_an_activation_count_as_softmax() -> None:
    model, before, *_ = network(lambda z: z, factor=1.0)
    images = pictures()
    explanation = GradCAM(model)(images, classes=[0, 1, 2])
    np.testing.assert_allclose(
        explanation.probabilities, softmax(before(images).numpy()), rtol=1e-5
    )


def test_a_sigmoid_unit_has_two_sides() -> None:
    """tf-explain #73, pytorch-grad-cam #325 #428."""
    model, before, features, dense = network(ops.sigmoid, units=1)
    images = pictures()
    explanation = GradCAM(model)(images, classes=["positive", "negative", 0])
    logits = before(images).numpy()[:, 0]
    np.testing.assert_allclose(explanation.scores, np.stack([logits, -logits, logits], 1))
    own = model(images).numpy()[:, 0]
    np.testing.assert_allclose(explanation.probabilities, np.stack([own, 1 - own, own], 1))
    signed = np.einsum("bhwk,kc->bchw", features(images).numpy(), dense.kernel.numpy()) / 144
    expected = np.maximum(np.concatenate([signed, -signed, signed], axis=1), 0)
    np.testing.assert_allclose(explanation.heatmaps, expected, rtol=1e-4, atol=1e-6)
    dense.bias.assign([-1000.0])
    top = GradCAM(model)(images)
    assert top.classes == [["negative"], ["negative"]]
    assert top.probabilities.tolist() == [[1.0], [1.0]]
    with pytest.raises(UserError, match="are 0 to 0. Its other class is 'negative'"):
        GradCAM(model)(images, classes=[1])
    for names, sides in ((["cat"], ("cat", "not cat")), (["dog", "cat"], ("cat", "dog"))):
        named = GradCAM(model, class_names=names)
        assert named(images).classes == [[sides[1]], [sides[1]]]
        assert named.class_names == sides
        found = named(images, classes=[*sides, "positive", "negative"]).scores
        np.testing.assert_array_equal(found[:, :2], found[:, 2:])
        np.testing.assert_array_equal(found[:, 1], top.scores[:, 0])


@pytest.mark.parametrize("two_layers", [False, True])
def test_many_classes_and_groups_equal_an_eager_tape(two_layers: bool) -> None:
    """One product for all classes behind a linear head; a loop behind any other."""
    keras.utils.set_random_seed(2)
    inputs, features = keras.Input((12, 12, 3)), backbone()
    hidden = layers.Dense(7, activation="tanh") if two_layers else layers.Identity()
    dense, images = layers.Dense(40), pictures(3)
    pooled = layers.GlobalAveragePooling2D()(features(inputs))
    model = keras.Model(inputs, layers.Softmax()(dense(hidden(pooled)) / 2.0))
    rows = [[i, [i, 39 - i, 20], 2 * i] for i in (3, 5, 8)]
    found = GradCAM(model)(images, classes_per_image=rows)
    maps = tf.constant(features(images))
    for j in range(3):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits = dense(hidden(tf.reduce_mean(maps, axis=[1, 2]))) / 2.0
            scores = tf.stack(
                [
                    tf.reduce_logsumexp(tf.gather(logits[b], np.atleast_1d(rows[b][j])))
                    for b in range(3)
                ]
            )
        alphas = tf.reduce_mean(tape.gradient(scores, maps), axis=[1, 2], keepdims=True)
        expected = np.maximum(tf.reduce_sum(alphas * maps, axis=-1), 0)
        np.testing.assert_allclose(found.scores[:, j], scores, rtol=1e-4)
        np.testing.assert_allclose(found.heatmaps[:, j], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rows", [[[0, 0, 1]], np.eye(3)[[2]], np.eye(3, dtype=int)[[0]]])
def test_one_hot_rows_are_refused_with_advice(nested: keras.Model, rows: Any) -> None:
    """tf-explain PR #143: one-hot labels explained classes 0 and 1."""
    with pytest.raises(UserError, match=r"one-hot rows, give np.argmax\(rows, axis=-1\)"):
        GradCAM(nested)(pictures(1), class_per_image=rows)
