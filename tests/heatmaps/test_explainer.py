"""The explainer as an object: threads, memory, `predict`, and the layer that a trace settles on."""

import gc
import os
import threading
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import cam_of, pictures

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import METHODS, ScoreCAM
from kgradcam.models.classifier import load_classifier


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


def test_a_model_that_trains_meanwhile_is_compared_at_equal_weights(
    nested: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights change after the explanation, and before the model's own outputs."""
    images, cam = pictures(), GradCAM(nested)
    expected = GradCAM(nested)(images, classes=[0]).heatmaps
    difference = cam._live._difference

    def trained(*arguments: Any) -> float:
        nested.set_weights([-2 * each for each in nested.get_weights()])
        return difference(*arguments)

    monkeypatch.setattr(cam._live, "_difference", trained)
    np.testing.assert_array_equal(cam(images, classes=[0]).heatmaps, expected)
    again = GradCAM(nested)(images, classes=[0]).heatmaps
    np.testing.assert_array_equal(cam(images, classes=[0]).heatmaps, again)
    assert not np.array_equal(again, expected)


@pytest.mark.slow
def test_threads_explain_a_model_that_trains(nested: keras.Model) -> None:
    nested.compile("sgd", "sparse_categorical_crossentropy")
    images, failures = pictures(), []
    done = threading.Event()

    def train() -> None:
        nested.fit(np.tile(images, (8, 1, 1, 1)), np.zeros(8 * len(images)), 8, 4, verbose=0)
        done.set()

    def explain() -> None:
        try:
            while not done.is_set():
                assert np.isfinite(GradCAM(nested)(images).heatmaps).all()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=each) for each in [train, *[explain] * 7]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (done.is_set(), failures) == (True, [])


@pytest.mark.parametrize("argument", ["score", "preprocess", "reshape"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_callback_that_fails_leaves_nothing_behind(
    nested: keras.Model, argument: str, error: type[BaseException]
) -> None:
    images, door = pictures(), keras.Operation.__call__
    expected = GradCAM(nested)(images, classes=[0]).heatmaps

    def fail(*_: Any) -> Any:
        raise error

    with pytest.raises(error):
        GradCAM(nested, **{argument: fail})(images)
    assert keras.Operation.__call__ is door
    np.testing.assert_array_equal(GradCAM(nested)(images, classes=[0]).heatmaps, expected)


def test_an_explainer_inside_an_explainer_is_refused(nested: keras.Model) -> None:
    images, inner = pictures(), GradCAM(nested)

    def score(outputs: Any) -> Any:
        inner(images)
        return outputs[:, 0]

    with pytest.raises(UserError, match="no part of a tf.function"):
        GradCAM(nested, score=score)(images)
    assert np.isfinite(inner(images).heatmaps).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_is_told_to_spawn(nested: keras.Model) -> None:
    """It would wait for ever for the threads of its parent."""
    cam, images = GradCAM(nested), pictures()
    for use in (lambda: cam(images), lambda: GradCAM(nested), lambda: load_classifier("resnet50")):
        child = os.fork()
        if not child:
            try:
                use()
            except UserError as error:
                os._exit(7 if "'spawn'" in str(error) else 8)
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert cam(images).heatmaps.shape[0] == len(images)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"classes": 5}, "classes must be a list. Received: 5"),
        ({"classes": "dog"}, "classes must be a list. Received: 'dog'"),
        ({"class_per_image": np.int64(1)}, "class_per_image must be a list. Received: "),
        ({"classes_per_image": [0, 1]}, "list of lists; one class for each image is class_per_"),
        ({"classes_per_image": ["cat", "dog"]}, "list of lists; one class for each image is "),
        ({"classes_per_image": [[0], [1, 2]]}, r"equally many classes .* Received: \[1, 2\]"),
    ],
)
def test_classes_of_another_form_are_named(
    nested: keras.Model, classes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        GradCAM(nested)(pictures(2), **classes)


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
