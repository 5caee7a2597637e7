"""The explainer as an object: threads, memory, `predict`, and the layer that a trace settles on."""

import gc
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import cam_of, pictures

from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import METHODS, ScoreCAM


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


@pytest.mark.parametrize("frozen", [False, True])
def test_a_thousand_calls_leave_no_growth(nested: keras.Model, frozen: bool) -> None:
    """Memory leaks and growing times: keras-vis #71, pytorch-grad-cam #78 #117."""
    live, images = GradCAM(nested), pictures(1)
    cam = live.freeze() if frozen else live
    cam(images, classes=[0])
    gc.collect()
    before = len(gc.get_objects())
    for i in range(1000):
        cam(images, classes=[i % 3])
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert cam.trace_count == 1


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


class Aside(keras.Model):
    """Makes another map after the main one, and does not use it."""

    def __init__(self, main: keras.Model) -> None:
        super().__init__()
        self.main = main
        self.extra = keras.layers.Conv2D(4, 3, name="extra")

    def call(self, images):
        result = self.main(images)
        self.extra(images)
        return result


def test_the_last_map_is_not_explained_if_the_outputs_do_not_use_it(nested: keras.Model) -> None:
    inputs, images = keras.Input((12, 12, 3)), pictures()
    cam = GradCAM(keras.Model(inputs, Aside(nested)(inputs)))
    assert str(cam.layer).endswith("/backbone/last")
    expected = cam_of(nested.get_layer("backbone"), nested.get_layer("head"), images)
    np.testing.assert_allclose(cam(images, classes=[0, 1, 2]).heatmaps, expected, atol=1e-6)
    assert cam.trace_count == 1


def test_a_map_inside_a_loop_is_not_the_default() -> None:
    """TimeDistributed calls its layer in a loop, whose tensors do not exist outside."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu", name="outside")(inputs)
    frames = keras.layers.Reshape((2, 5, 10, 4))(maps)
    inside = keras.layers.TimeDistributed(keras.layers.Conv2D(2, 3, name="inside"))(frames)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inside)))
    cam, images = GradCAM(model, "outside"), pictures()
    maps = tf.constant(model.get_layer("outside")(images))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        rest = maps
        for layer in model.layers[2:]:
            rest = layer(rest)
        score = rest[:, 1]
    alphas = tape.gradient(score, maps).numpy().mean(axis=(1, 2), keepdims=True)
    expected = np.maximum((alphas * maps.numpy()).sum(axis=-1), 0)
    assert expected.max() > 0
    found = cam(images, classes=[1]).heatmaps[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loops", [GradCAM, ScoreCAM])
def test_an_error_in_a_loop_leaves_no_state_behind(nested: keras.Model, loops) -> None:
    """After an error inside `tf.map_fn` no model can be created under a strategy any more."""
    calls = []

    def fail(outputs):
        calls.append(outputs)
        if len(calls) > 1 or loops is GradCAM:
            raise RuntimeError("broken")
        return outputs[:, 0]

    with pytest.raises(RuntimeError, match="broken"):
        loops(nested, score=fail)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        keras.layers.Dense(2).build((None, 3))


@pytest.mark.parametrize("name", METHODS)
def test_an_explainer_is_made_by_every_method(nested: keras.Model, name: str) -> None:
    """Methods are functions of a forward pass; all share one class of explainer."""
    assert type(METHODS[name](nested)) is GradCAM
