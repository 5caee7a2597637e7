"""The weights of channels for a class: alphas by hand, names, table and sentence."""

import keras
import numpy as np
import pytest

from kgradcam import neuron_importance
from kgradcam.errors import UserError

WEIGHTS = np.array([[2.0, -1], [0.5, 0], [-3, 4], [0, 0.25]], np.float32)


@pytest.fixture
def model() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            keras.layers.Conv2D(4, 1, activation="relu", name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="head", activation="softmax"),
        ]
    )
    model.get_layer("head").kernel.assign(WEIGHTS)
    return model


def test_alphas_are_the_weights_of_the_head_over_the_places(model: keras.Model) -> None:
    image = np.random.default_rng(0).normal(size=(6, 5, 3))
    for c in (0, 1):
        found = neuron_importance(model, image, c)
        np.testing.assert_allclose(found.alphas, WEIGHTS[:, c] / 30, rtol=1e-5)
    assert found.layer == "maps"
    assert found.class_name == "class 1"
    assert [name for name, _ in found.highest()] == ["channel 2", "channel 3"]
    assert [name for name, _ in found.lowest()] == ["channel 0"]


def test_the_alphas_of_a_group_are_mixed_by_softmax(model: keras.Model) -> None:
    """The gradient of a log-sum-exp weighs each logit's by its softmax within the group."""
    image = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    shares = model(image[None]).numpy()[0]
    head = keras.layers.Dense(3, activation="softmax")
    three = keras.Sequential([*model.layers[:2], head])
    three.build((None, 6, 5, 3))
    head.kernel.assign(np.concatenate([WEIGHTS, np.ones((4, 1), np.float32)], axis=1))
    found = neuron_importance(three, image, [0, 1])
    np.testing.assert_allclose(found.alphas, WEIGHTS @ shares / 30, atol=1e-7)


def test_a_table_and_a_sentence(model: keras.Model) -> None:
    found = neuron_importance(
        model, np.zeros((6, 5, 3)), 0, names={0: "ears", 2: "wheels"}, class_name="cat"
    )
    assert found.sentence() == "cat: ears and channel 1 raise the score, wheels lower it."
    assert found.sentence(1) == "cat: ears raise the score, wheels lower it."
    header, lines = found.table()
    assert header == ["channel", "alpha"]
    assert lines == [["ears", "+0.06667"], ["channel 1", "+0.01667"], ["wheels", "-0.1"]]


def test_no_channel_on_one_side(model: keras.Model) -> None:
    model.get_layer("head").kernel.assign(np.abs(WEIGHTS))
    found = neuron_importance(model, np.zeros((6, 5, 3)), 1, names=list("abcd"))
    assert found.sentence() == "class 1: c, a and d raise the score, no channels lower it."


def test_options_are_those_of_the_explainer(model: keras.Model) -> None:
    with pytest.raises(UserError, match="layer='map' is no layer"):
        neuron_importance(model, np.zeros((6, 5, 3)), 0, layer="map")
