"""The frozen graph: the same numbers, the weights of now, and what cannot be frozen."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from kgradcam.errors import UserError
from kgradcam.heatmaps import frozen as freezing
from kgradcam.heatmaps.frozen import CannotFreezeError, Snapshot, choose_precision
from kgradcam.heatmaps.gradcam import GradCAM

RANDOM = np.random.default_rng(5)
FREEZE_AFTER = 8


@pytest.fixture(autouse=True)
def frozen_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezing, "FREEZE_AFTER", FREEZE_AFTER)


def reduced() -> str:
    """The reduced precision of this machine."""
    precision = choose_precision("auto")
    if precision == "float32":
        pytest.skip("needs a CPU with AVX512-BF16 or AMX, or a GPU with tensor cores")
    return precision


def pictures(count: int = 2) -> np.ndarray:
    return RANDOM.normal(size=(count, 12, 12, 3)).astype(np.float32)


@pytest.fixture
def model() -> keras.Model:
    """Convolutions with biases and batch normalizations, one of them depthwise; a residual sum."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = stem = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False)(x)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(scale=False)(x))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 1)(x))
    x = keras.layers.Add(name="sum")([x, stem])
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation("relu", name="last")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    for variable in model.variables:
        values = RANDOM.uniform(0.5, 1.5, variable.shape)
        if "kernel" not in variable.path or "head" in variable.path:
            variable.assign(values)
    return model


def freeze(cam: GradCAM) -> None:
    for _ in range(2):
        cam(pictures(FREEZE_AFTER), classes=[0])
    assert cam._compiled.obstacle is None
    assert cam._compiled.freeze_count == 1


@pytest.mark.parametrize("layer", ["last", "first"])
def test_frozen_heatmaps_are_those_of_the_graph_as_it_is(model: keras.Model, layer: str) -> None:
    cam, images = GradCAM(model, layer), pictures()
    before = cam(images, classes=[0, [1, 2]])
    freeze(cam)
    after = cam(images, classes=[0, [1, 2]])
    assert before.heatmaps.max() > 0.001
    np.testing.assert_allclose(after.heatmaps, before.heatmaps, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-5, atol=1e-5)
    assert cam.trace_count == 2


@pytest.mark.parametrize("precision", ["float32", "reduced"])
def test_a_weight_without_use_is_no_obstacle(model: keras.Model, precision: str) -> None:
    """The seed of a dropout is a variable of the model that its prediction never reads."""
    dropped = keras.Sequential([model, keras.layers.Dropout(0.5), keras.layers.Dense(4)])
    assert any("seed" in variable.path for variable in dropped.variables)
    images = pictures()
    precision = reduced() if precision == "reduced" else precision
    cam = GradCAM(dropped, "last", precision=precision, freeze=True)
    after = cam(images, classes=[0])
    assert (cam._compiled.obstacle, cam._compiled.freeze_count) == (None, 1)
    before = GradCAM(dropped, "last", freeze=False)(images, classes=[0])
    tolerance = 1e-4 if precision == "float32" else 0.05
    np.testing.assert_allclose(after.scores, before.scores, rtol=tolerance, atol=tolerance)


def test_freezing_is_done_at_once_or_never_if_asked_for(model: keras.Model) -> None:
    always, never = GradCAM(model, freeze=True), GradCAM(model, freeze=False)
    counts = []
    for _ in range(4):
        for cam in (always, never):
            cam(pictures(FREEZE_AFTER), classes=[0])
        counts.append((always._compiled.freeze_count, never._compiled.freeze_count))
    assert counts == [(1, 0)] * 4
    model.layers[-1].bias.assign([1.0, 2.0, 3.0])
    always(pictures(1), classes=[0])
    assert (always._compiled.freeze_count, always.trace_count, never.trace_count) == (2, 2, 1)
    assert never._compiled._snapshot is None  # nothing is kept to compare weights with


def test_batch_normalizations_are_folded_into_convolutions(model: keras.Model) -> None:
    cam = GradCAM(model)
    freeze(cam)
    operations = cam._compiled._compiled.get_concrete_function().graph.get_operations()
    before_the_map = [each.type for each in operations if each.name.startswith("functional")]
    assert before_the_map.count("Conv2D") + before_the_map.count("_FusedConv2D") == 2
    # What is left of three normalizations: nothing but the residual sum.
    assert not any("batch_normalization" in e.name and e.type == "Mul" for e in operations)


def test_reduced_precision_agrees_with_float32(model: keras.Model) -> None:
    images = pictures(8)
    exact = GradCAM(model)(images, classes=[0, 1, 2])
    cam = GradCAM(model, precision=reduced())
    found = cam(images, classes=[0, 1, 2])
    assert cam._compiled.obstacle is None
    assert 0 < np.abs(found.heatmaps - exact.heatmaps).max() < 0.02 * exact.heatmaps.max()
    np.testing.assert_allclose(found.scores, exact.scores, atol=0.05)
    again = GradCAM(model, precision="auto")
    np.testing.assert_array_equal(again(images, classes=[0, 1, 2]).heatmaps, found.heatmaps)


@pytest.mark.parametrize("options", [{}, {"score": lambda outputs: outputs[:, 0]}])
def test_xla_compiles_what_is_frozen(model: keras.Model, options: dict) -> None:
    cams = [GradCAM(model, precision=reduced(), jit_compile=xla, **options) for xla in (0, 1)]
    images, classes = pictures(), {} if options else {"classes": [0]}
    plain, compiled = (cam(images, **classes) for cam in cams)
    assert cams[1]._compiled.freeze_count == 1
    assert plain.heatmaps.max() > 0.001
    np.testing.assert_allclose(compiled.heatmaps, plain.heatmaps, atol=0.02 * plain.heatmaps.max())


@pytest.mark.parametrize("precision", ["float32", "reduced"])
def test_all_scales_and_what_refines_are_frozen_alike(precision: str) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = inputs
    for i, strides in enumerate((1, 2, 2)):
        x = keras.layers.Conv2D(8, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(name=f"scaled_{i}")(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    for i in range(3):
        model.get_layer(f"scaled_{i}").gamma.assign(RANDOM.uniform(0.5, 1.5, 8))
    images = RANDOM.normal(size=(4, 24, 32, 3)).astype(np.float32)
    options = {"scales": (1.0, 0.5), "refine": True}
    exact = GradCAM(model, **options)(images, classes=[0, 1, 2])
    cam = GradCAM(model, **options, precision=reduced() if precision == "reduced" else "float32")
    for _ in range(1 + FREEZE_AFTER // 4):
        cam(images, classes=[0])
    found = cam(images, classes=[0, 1, 2])
    assert (cam._compiled.obstacle, cam._compiled.freeze_count) == (None, 1)
    assert np.median(np.ptp(exact.heatmaps, axis=(2, 3))) > 0.5
    difference = np.abs(found.heatmaps - exact.heatmaps).max()
    if precision == "float32":
        assert difference < 1e-3
    else:
        assert 0 < difference < 0.1
    operations = cam._compiled._compiled.get_concrete_function().graph.get_operations()
    convolutions = [each for each in operations if each.type in ("Conv2D", "_FusedConv2D")]
    lowered = [each for each in convolutions if each.outputs[0].dtype != tf.float32]
    assert len(convolutions) == 6
    assert len(lowered) == (6 if precision == "reduced" else 0)


def test_tracing_and_freezing_are_counted(model: keras.Model) -> None:
    cam = GradCAM(model, precision=reduced())
    assert (cam.trace_count, cam._compiled.freeze_count) == (1, 0)
    for count in (1, 5, 2):
        cam(pictures(count), classes=[0])
    assert (cam.trace_count, cam._compiled.freeze_count) == (2, 1)
    model.get_layer("head").bias.assign([1.0, 2, 3])
    for _ in range(3):
        cam(pictures(), classes=[0])
    assert (cam.trace_count, cam._compiled.freeze_count) == (2, 2)


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
    "scatter_update": lambda model: model.get_layer("first").kernel.value.scatter_update(
        tf.IndexedSlices(tf.ones((1, 3, 3, 8)), tf.constant([1]))
    ),
    "fit": _train,
    "fit with XLA": lambda model: _train(model, jit_compile=True),
    "batch statistics": lambda model: model(pictures(4), training=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_weights_is_seen_by_the_next_call(
    model: keras.Model, change: str
) -> None:
    cam, images = GradCAM(model), pictures()
    freeze(cam)
    for _ in range(2):  # the second time, the variable's own buffer was left behind by the first
        before = cam(images, classes=[0]).scores
        snapshot = Snapshot(model.variables)
        assert snapshot.holds()
        CHANGES[change](model)
        after = cam(images, classes=[0]).scores
        np.testing.assert_allclose(after[:, 0], model(images)[:, 0], rtol=1e-4, atol=1e-5)
        if change not in ("assign", "one element", "scatter_update"):  # the same value again
            assert not snapshot.holds()
            assert np.abs(after - before).max() > 1e-6


def test_weights_loaded_from_a_file_are_seen(model: keras.Model, tmp_path: Path) -> None:
    cam, images = GradCAM(model), pictures()
    freeze(cam)
    before = cam(images, classes=[0]).heatmaps
    model.save_weights(tmp_path / "some.weights.h5")
    model.get_layer("head").kernel.assign(2 * model.get_layer("head").kernel)
    np.testing.assert_allclose(cam(images, classes=[0]).heatmaps, 2 * before, rtol=1e-4, atol=1e-6)
    model.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_allclose(cam(images, classes=[0]).heatmaps, before, rtol=1e-4, atol=1e-6)


def test_the_comparison_is_compiled_when_there_is_something_to_compare(
    model: keras.Model,
) -> None:
    cam, counts = GradCAM(model), []
    for _ in range(3):
        cam(pictures(1), classes=[0])
        counts.append(cam._compiled._snapshot._read.experimental_get_tracing_count())
    assert counts == [0, 1, 1]


def test_the_same_values_written_again_freeze_nothing(model: keras.Model) -> None:
    cam = GradCAM(model)
    freeze(cam)
    model.set_weights(model.get_weights())
    cam(pictures(), classes=[0])
    assert cam._compiled.freeze_count == 1


def test_a_comparison_that_is_interrupted_hides_no_change(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam, images = GradCAM(model), pictures()
    freeze(cam)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    model.get_layer("head").bias.assign([5.0, 6, 7])
    with monkeypatch.context() as patch:
        patch.setattr(freezing, "_equal", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cam(images, classes=[0])
    scores = cam(images, classes=[0]).scores
    np.testing.assert_allclose(scores[:, 0], model(images)[:, 0], rtol=1e-4, atol=1e-5)


UPDATES: dict[str, Callable[[tf.Variable], object]] = {
    "assign_add": lambda variable: variable.assign_add(tf.ones(variable.shape)),
    "scatter_add": lambda variable: variable.scatter_add(
        tf.IndexedSlices(tf.ones((1, *variable.shape[1:])), tf.constant([0]))
    ),
}


@pytest.mark.parametrize("update", [*UPDATES, "XLA"])
def test_what_a_snapshot_holds_is_not_written_to_by_a_thread_that_trains(update: str) -> None:
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(50)
    layer.build((None, 40))
    kernel = layer.kernel.value
    write = UPDATES.get(update, UPDATES["assign_add"])
    step = tf.function(lambda: write(kernel), jit_compile=update == "XLA")
    step()
    thread = threading.Thread(target=lambda: [step() for _ in range(400)])
    snapshot, checks = Snapshot(layer.variables), 0
    thread.start()
    while thread.is_alive() or checks < 3:
        snapshot.take()
        copies = [value.numpy().copy() for value in snapshot.values]
        [kernel.read_value() for _ in range(20)]  # time to write
        for copied, value in zip(copies, snapshot.values, strict=True):
            np.testing.assert_array_equal(value, copied)
        checks += 1
    thread.join()
    snapshot.take()
    step()
    assert not snapshot.holds()


def test_the_call_after_a_thread_has_trained_sees_its_weights(model: keras.Model) -> None:
    cam, images = GradCAM(model), pictures()
    freeze(cam)
    bias = model.get_layer("head").bias.value
    thread = threading.Thread(target=lambda: [bias.assign_add(tf.ones(3)) for _ in range(300)])
    thread.start()
    while thread.is_alive():
        cam(pictures(FREEZE_AFTER), classes=[0])
    for _ in range(3):
        scores = cam(images, classes=[0]).scores
        np.testing.assert_allclose(scores[:, 0], model(images)[:, 0], rtol=1e-4, atol=1e-4)
        cam(pictures(FREEZE_AFTER), classes=[0])


def test_freezing_again_and_again_leaves_nothing_behind(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezing, "FREEZE_AFTER", 0)
    cam, images = GradCAM(model), pictures()
    counts = []
    for i in range(8):
        model.get_layer("head").bias.assign_add([1.0, 0, 0])
        cam(images, classes=[0])
        assert cam._compiled.freeze_count == i + 1
        gc.collect()
        graphs = sum(isinstance(each, tf.Graph) for each in gc.get_objects())
        counts.append((graphs, len(context.context().list_function_names())))
    assert counts[2:] == [counts[2]] * 6
    assert cam.trace_count == 2


def test_reduced_weights_are_not_kept_in_float32_as_well() -> None:
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(64, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(256, 3, use_bias=False)(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    cam = GradCAM(model, precision=reduced())
    cam(pictures(), classes=[0])
    graph_def = cam._compiled._compiled.get_concrete_function().graph.as_graph_def()
    size = 4 * model.count_params()
    assert 0.5 * size < graph_def.ByteSize() < 0.6 * size + 50_000


def test_explainers_and_threads_share_a_model(model: keras.Model) -> None:
    cams = [GradCAM(model), GradCAM(model, "first")]
    images = pictures()
    expected = [cam(images, classes=[0]).heatmaps for cam in cams]
    found: list[tuple[int, np.ndarray]] = []

    def explain(i: int) -> None:
        cams[i](pictures(FREEZE_AFTER), classes=[0])
        found.append((i, cams[i](images, classes=[0]).heatmaps))

    threads = [threading.Thread(target=explain, args=(i % 2,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for i, heatmaps in found:
        np.testing.assert_allclose(heatmaps, expected[i], rtol=1e-4, atol=1e-6)
    assert [cam._compiled.freeze_count for cam in cams] == [1, 1]


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
        (lambda: Counting(known=True), ""),  # its weights never stay the same
        (lambda: Counting(known=False), "unknown to Keras"),
        (Looking, "unknown to Keras"),
        (lambda: keras.layers.Lambda(lambda x: x + 0 * tf.random.uniform(())), "RandomUniform"),
    ],
)
def test_what_cannot_be_frozen_runs_as_it_is(model: keras.Model, layer, why: str) -> None:
    inputs = keras.Input((12, 12, 3))
    whole = keras.Model(inputs, model(layer()(inputs)))
    cam, images = GradCAM(whole, "last"), pictures()
    before = cam(images, classes=[0]).heatmaps
    for _ in range(3):
        cam(pictures(FREEZE_AFTER), classes=[0])
    assert why in (cam._compiled.obstacle or "")
    assert cam._compiled.freeze_count == 0
    np.testing.assert_array_equal(cam(images, classes=[0]).heatmaps, before)


def test_a_model_that_falls_back_says_so(
    model: keras.Model, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise CannotFreezeError("it will not")

    cam = GradCAM(model, precision=reduced())
    assert cam.precision == reduced()
    cam._compiled._freeze = refuse
    images = pictures()
    heatmaps = cam(images, classes=[0]).heatmaps
    assert cam.precision == "float32"
    assert f"{model.name} stays in float32: it will not" in caplog.text
    np.testing.assert_array_equal(heatmaps, GradCAM(model)(images, classes=[0]).heatmaps)


def test_precision_is_checked(monkeypatch: pytest.MonkeyPatch, model: keras.Model) -> None:
    with pytest.raises(UserError, match="precision='bfloat61' is none of .* 'bfloat16'"):
        GradCAM(model, precision="bfloat61")
    monkeypatch.setattr(freezing, "_cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(freezing, "_gpus", list)
    assert choose_precision("auto") == "float32"
    with pytest.raises(UserError, match="'bfloat16' needs a CPU with AVX512-BF16"):
        choose_precision("bfloat16")
    monkeypatch.setattr(freezing, "_cpu_has_bfloat16", lambda: True)
    assert choose_precision("auto") == "bfloat16"


@pytest.mark.slow
def test_photographs_agree_in_reduced_precision(shared: Path) -> None:
    """For each of 40 dogs a cosine of 0.999; for their boxes an IoU of 0.95 in the median."""
    from kgradcam.boxes.normalization import normalize
    from kgradcam.boxes.single_threshold import single_threshold_boxes
    from kgradcam.data.images import read_image
    from kgradcam.models.classifier import load_classifier

    classifier = load_classifier("efficientnet-lite0", image_size=224)
    precisions = ("float32", reduced())
    exact, lower = (
        GradCAM(classifier.model, preprocess=classifier.preprocess, precision=each)
        for each in precisions
    )
    paths = sorted((shared / "data/dogs40/JPEGImages").glob("*.jpg"))
    images = np.stack([read_image(path, 224) for path in paths])
    one, other = (
        cam(images, classes=[range(151, 269)]).heatmaps[:, 0].astype(np.float64)
        for cam in (exact, lower)
    )
    norms = np.linalg.norm(one, axis=(1, 2)) * np.linalg.norm(other, axis=(1, 2))
    assert len(paths) == 40
    assert ((one * other).sum(axis=(1, 2)) / norms).min() >= 0.999
    overlaps = []
    for pair in zip(one, other, strict=True):
        found = [single_threshold_boxes(normalize(each, (224, 224)), 0.25) for each in pair]
        a, b = (max(boxes, key=lambda box: (box[2:] - box[:2]).prod()) for boxes in found)
        inner = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
        areas = sum((box[2:] - box[:2]).prod() for box in (a, b))
        overlaps.append(inner / (areas - inner))
    assert np.median(overlaps) >= 0.95
