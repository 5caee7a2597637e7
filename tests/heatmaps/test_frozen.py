"""Frozen explainers: the same numbers, the weights of then, and models that cannot be frozen."""

import gc
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import normalized_network, pictures
from tensorflow.python.eager import context

from kgradcam.errors import UserError
from kgradcam.heatmaps import frozen as frozen_module
from kgradcam.heatmaps.frozen import freeze_if_possible
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.graph_rewriting import CannotFreezeError


@pytest.fixture
def model() -> keras.Model:
    return normalized_network()


@pytest.mark.parametrize("layer", ["last", "first"])
def test_frozen_heatmaps_are_those_of_the_live_graph(model: keras.Model, layer: str) -> None:
    live, images = GradCAM(model, layer), pictures()
    cam = live.freeze()
    before, after = (each(images, classes=[0, [1, 2]]) for each in (live, cam))
    assert before.heatmaps.max() > 0.001
    np.testing.assert_allclose(after.heatmaps, before.heatmaps, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-5, atol=1e-5)
    assert after.classes == before.classes
    assert (cam.layer, cam.precision, cam.model) == (live.layer, "float32", model)


@pytest.mark.parametrize("precision", ["float32", "reduced"])
def test_a_weight_without_use_is_no_obstacle(
    model: keras.Model, precision: str, request: pytest.FixtureRequest
) -> None:
    """The seed of a dropout is a variable of the model that its prediction never reads."""
    if precision == "reduced":
        precision = request.getfixturevalue("reduced")
    dropped = keras.Sequential([model, keras.layers.Dropout(0.5), keras.layers.Dense(4)])
    assert any("seed" in variable.path for variable in dropped.variables)
    live, images = GradCAM(dropped, "last"), pictures()
    before, after = (cam(images, classes=[0]) for cam in (live, live.freeze(precision)))
    tolerance = 1e-4 if precision == "float32" else 0.05
    np.testing.assert_allclose(after.scores, before.scores, rtol=tolerance, atol=tolerance)


def test_traces_are_counted(model: keras.Model) -> None:
    live = GradCAM(model)
    cam = live.freeze()
    for count in (1, 5, 2):
        cam(pictures(count), classes=[0])
        cam(pictures(count))
    assert (live.trace_count, cam.trace_count) == (1, 1)
    cam.predict(pictures(), classes=[0])
    cam.predict(pictures(3), classes=[1, 2])
    assert (live.trace_count, cam.trace_count) == (1, 2)


def _train(model: keras.Model, **options: object) -> None:
    model.compile("adam", "mse", **options)
    model.fit(pictures(4), np.ones((4, 3)), verbose=0)


CHANGES = {
    "set_weights": lambda model: model.set_weights([each + 0.1 for each in model.get_weights()]),
    "assign": lambda model: model.get_layer("first").kernel.assign(np.ones((3, 3, 3, 8))),
    "assign_add": lambda model: model.get_layer("first").kernel.value.assign_add(
        np.ones((3, 3, 3, 8), np.float32)
    ),
    "one element": lambda model: model.get_layer("head").kernel.value[0, 0].assign(9.0),
    "fit": _train,
    "fit with XLA": lambda model: _train(model, jit_compile=True),
    "batch statistics": lambda model: model(pictures(4), training=True),
}


# Op determinism, which seeded trainings of this process turn on for good, excludes XLA in Keras.
@pytest.mark.filterwarnings("ignore:Model doesn't support `jit_compile=True`")
@pytest.mark.parametrize("change", CHANGES)
def test_the_live_explainer_follows_the_weights_and_the_frozen_one_does_not(
    model: keras.Model, change: str
) -> None:
    live, images = GradCAM(model), pictures()
    cam = live.freeze()
    before = cam(images, classes=[0])
    CHANGES[change](model)
    after, still = live(images, classes=[0]), cam(images, classes=[0])
    np.testing.assert_allclose(after.scores[:, 0], model(images)[:, 0], rtol=1e-4, atol=1e-5)
    assert np.abs(after.scores - before.scores).max() > 1e-6
    np.testing.assert_array_equal(still.scores, before.scores)
    np.testing.assert_array_equal(still.heatmaps, before.heatmaps)
    # predict is frozen only now, and with the same weights as the call.
    np.testing.assert_allclose(
        cam.predict(images, classes=[0])[0], before.scores, rtol=1e-4, atol=1e-5
    )


def test_weights_loaded_from_a_file_are_followed(model: keras.Model, tmp_path) -> None:
    live, images = GradCAM(model), pictures()
    before = live(images, classes=[0]).heatmaps
    model.save_weights(tmp_path / "some.weights.h5")
    model.get_layer("head").kernel.assign(2 * model.get_layer("head").kernel)
    np.testing.assert_allclose(live(images, classes=[0]).heatmaps, 2 * before, rtol=1e-4, atol=1e-6)
    model.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_allclose(live(images, classes=[0]).heatmaps, before, rtol=1e-4, atol=1e-6)


def test_freezing_again_and_again_leaves_nothing_behind(model: keras.Model) -> None:
    live, images = GradCAM(model), pictures()
    counts = []
    for _ in range(6):
        model.get_layer("head").bias.assign_add([1.0, 0, 0])
        live.freeze()(images, classes=[0])
        gc.collect()
        graphs = sum(isinstance(each, tf.Graph) for each in gc.get_objects())
        counts.append((graphs, len(context.context().list_function_names())))
    assert counts[2:] == [counts[2]] * 4


def test_the_loops_of_a_frozen_graph_outlive_garbage_collection(model: keras.Model) -> None:
    """TensorFlow unregisters the body of a loop when the trace that defined it is collected."""
    live, images = GradCAM(model), pictures()
    cams = [live.freeze() for _ in range(2)]
    gc.collect()
    expected = live(images, classes=[0, 1]).heatmaps
    for cam in cams:
        found = cam(images, classes=[0, 1]).heatmaps
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_explainers_and_threads_share_a_model(model: keras.Model) -> None:
    lives, images = [GradCAM(model), GradCAM(model, "first")], pictures()
    expected = [cam(images, classes=[0]).heatmaps for cam in lives]
    found: list[tuple[int, np.ndarray]] = []

    def explain(i: int) -> None:
        found.append((i, lives[i].freeze()(images, classes=[0]).heatmaps))

    threads = [threading.Thread(target=explain, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for i, heatmaps in found:
        np.testing.assert_allclose(heatmaps, expected[i], rtol=1e-4, atol=1e-6)


class Counting(keras.layers.Layer):
    """Counts its calls, in a variable that Keras knows, or in one that it does not."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self.known = known
        count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.box = [count if known else tf.Variable(0.0)]

    def call(self, x):
        self.box[0].assign_add(1.0) if not self.known else self.box[0].assign(self.box[0] + 1)
        return x


class Looking(keras.layers.Layer):
    """Scales by a value from a table."""

    def __init__(self) -> None:
        super().__init__()
        entries = tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0])
        self.table = tf.lookup.StaticHashTable(entries, 0.0)

    def call(self, x):
        return x * self.table.lookup(tf.constant(1))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: Counting(known=True), "it changes its variables when it is called"),
        (lambda: Counting(known=False), "unknown to Keras"),
        (Looking, "unknown to Keras"),
        (lambda: keras.layers.Lambda(lambda x: x + 0 * tf.random.uniform(())), "RandomUniform"),
    ],
)
def test_models_that_cannot_be_frozen(
    model: keras.Model, layer, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = keras.Input((12, 12, 3))
    whole = keras.Model(inputs, model(layer()(inputs)), name="whole")
    live = GradCAM(whole, "last")
    with pytest.raises(CannotFreezeError, match=f"whole cannot be frozen: .*{why}"):
        live.freeze()
    assert freeze_if_possible(live, "auto") is live
    assert "It runs as it is, in float32." in caplog.text


def test_a_model_larger_than_a_graph_cannot_be_frozen(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_module, "_MAX_BYTES", 4 * model.count_params() - 1)
    with pytest.raises(CannotFreezeError, match="larger than a graph may be, 2 GiB"):
        GradCAM(model).freeze()


def test_a_model_without_known_inputs_is_called_before_it_is_frozen(model: keras.Model) -> None:
    class Wrapped(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def call(self, images):
            return self.inner(images)

    live, images = GradCAM(Wrapped()), pictures()
    with pytest.raises(UserError, match="call the explainer once on a batch of images"):
        live.freeze()
    before = live(images, classes=[0])
    after = live.freeze()(images, classes=[0])
    np.testing.assert_allclose(after.heatmaps, before.heatmaps, rtol=1e-4, atol=1e-6)
