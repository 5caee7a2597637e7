"""How often an explainer traces, with what sizes, and that it leaves its model as it was."""

import logging
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import pictures

from kgradcam.errors import UserError
from kgradcam.heatmaps import tracing
from kgradcam.heatmaps.default_layer import list_layers
from kgradcam.heatmaps.gradcam import GradCAM

layers, ops = keras.layers, keras.ops


def network(*middle: Any, shape: Any = (None, None, 3), classes: int = 3) -> keras.Model:
    keras.utils.set_random_seed(0)
    first = layers.Conv2D(4, 3, padding="same", activation="relu", name="maps")
    end = [layers.GlobalAveragePooling2D(), layers.Dense(classes, name="head")]
    return keras.Sequential([keras.Input(shape), first, *middle, *end])


class Flattened(keras.Model):
    """Reads the static sizes of its map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3, padding="same", name="maps")
        self.dense = layers.Dense(3)

    def call(self, images: Any) -> Any:
        maps = self.conv(images)
        return self.dense(tf.reshape(maps, (-1, maps.shape[1] * maps.shape[2] * maps.shape[3])))


def test_sizes_that_a_model_must_know_are_traced_once_each() -> None:
    cam = GradCAM(network(layers.UpSampling2D(interpolation="bilinear")))
    assert (cam.layer, cam.trace_count) == (None, 0)
    for size in (8, 12, 8):
        for batch in (1, 3):
            heatmaps = cam(pictures(batch, size, size, 3), classes=[0]).heatmaps
            assert heatmaps.shape == (batch, 1, size, size)
    assert (cam.layer, cam.trace_count) == ("maps", 2)
    assert cam.predict(pictures(2, 8, 8, 3), classes=[0])[0].shape == (2, 1)
    assert cam.trace_count == 3


def test_static_sizes_in_the_call_of_a_subclassed_model() -> None:
    model, images = Flattened(), pictures(2, 8, 6, 3)
    cam = GradCAM(model)
    found = cam(images, classes=[0, 1, 2])
    np.testing.assert_allclose(found.scores, model(images), atol=1e-6)
    assert found.heatmaps.shape == (2, 3, 8, 6)
    assert cam.trace_count == 1


def test_a_length_of_batches_that_a_model_must_know() -> None:
    class OneByOne(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def call(self, images: Any) -> Any:
            return tf.concat([self.network(images[i : i + 1]) for i in range(images.shape[0])], 0)

    model = OneByOne()
    cam, images = GradCAM(model, layer="maps"), pictures(1, 8, 8, 3)
    np.testing.assert_allclose(cam(images, classes=[1]).scores[:, 0], model(images)[:, 1])


def test_many_sizes_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    cam = GradCAM(network(layers.UpSampling2D(interpolation="bilinear")))
    for size in range(4, 13):
        cam(pictures(1, size, 4, 3), classes=[0])
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "traced for each size" in caplog.text


class Forgetful(keras.Model):
    """Computes something else in a trace than in eager execution."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def call(self, images: Any) -> Any:
        return self.network(images) * (1.0 if tf.executing_eagerly() else 2.0)


def test_a_trace_that_computes_something_else_is_an_error() -> None:
    with pytest.raises(UserError, match=r"differ from those of the model .* by 100\.0%"):
        GradCAM(Forgetful())(pictures(), classes=[0])


def test_images_too_large_for_the_check_leave_it_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An eager call keeps all feature maps: 12 megapixels took 18 GB in ResNet50."""
    images, calls = pictures(3), []
    values = images[0].size
    original = tracing.LiveTraces._call_model

    def counted(self: Any, batch: Any) -> Any:
        calls.append(len(batch))
        return original(self, batch)

    monkeypatch.setattr(tracing.LiveTraces, "_call_model", counted)
    expected = {values - 1: [], values: [1], 2 * values - 1: [1], 2 * values: [2], 2**21: [2]}
    for most, wanted in expected.items():
        monkeypatch.setattr(tracing, "_CHECKED_VALUES", most)
        calls.clear()
        network = keras.Sequential(
            [
                keras.Input(images.shape[1:]),
                keras.layers.Conv2D(2, 3),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(2),
            ]
        )
        cam = GradCAM(network)
        cam(images, classes=[0])
        assert calls == wanted
        if not wanted:
            monkeypatch.setattr(tracing, "_CHECKED_VALUES", values)
            cam(images, classes=[0])
            assert calls == [1]


def test_outputs_that_depend_on_the_batch_are_no_difference() -> None:
    class Normalized(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def call(self, images: Any) -> Any:
            scores = self.network(images)
            return scores - ops.mean(scores, axis=0)

    model, images = Normalized(), pictures(5)
    scores = GradCAM(model, layer="maps")(images, classes=[0, 1, 2]).scores
    np.testing.assert_allclose(scores, model(images), atol=1e-6)


def test_random_outputs_are_not_compared(caplog: pytest.LogCaptureFixture) -> None:
    class Noisy(layers.Layer):
        def call(self, values: Any) -> Any:
            return values + tf.random.normal(tf.shape(values))

    caplog.set_level(logging.INFO, "kgradcam")
    heatmaps = GradCAM(network(Noisy()))(pictures(), classes=[0]).heatmaps
    assert np.isfinite(heatmaps).all()
    assert "change from call to call" in caplog.text


@pytest.fixture
def eager_functions() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_outputs_that_rounding_decides_are_not_compared(caplog: pytest.LogCaptureFixture) -> None:
    """As of a softmax that random weights saturate: which class is 1 depends on the last bit."""

    class Chaotic(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.maps = keras.layers.Conv2D(2, 3)

        def call(self, images: Any) -> Any:
            mean = tf.reduce_mean(self.maps(images), axis=[1, 2])
            traced = 0.0 if tf.executing_eagerly() else 1.0
            return tf.sin(1e6 * mean + traced)

    images = np.random.default_rng(0).uniform(1, 2, (2, 8, 8, 3))
    caplog.set_level(logging.INFO, "kgradcam")
    assert GradCAM(Chaotic())(images, classes=[0]).heatmaps.shape == (2, 1, 6, 6)
    assert "by rounding; not checked" in caplog.text


def test_functions_that_run_eagerly(eager_functions: None) -> None:
    model, images = network(), pictures()
    cam = GradCAM(model)
    eager = cam(images, classes=[0]).heatmaps
    frozen = cam.freeze()(images, classes=[0]).heatmaps
    scores = cam.predict(images, classes=[0])[0]
    tf.config.run_functions_eagerly(False)
    np.testing.assert_array_equal(GradCAM(model)(images, classes=[0]).heatmaps, eager)
    np.testing.assert_allclose(frozen, eager, atol=1e-6)
    np.testing.assert_allclose(scores[:, 0], model(images)[:, 0], atol=1e-6)
    assert cam.trace_count == 2


def test_a_call_inside_a_tf_function_is_refused() -> None:
    cam, images = GradCAM(network()), pictures()
    with pytest.raises(UserError, match=r"no part of a tf\.function"):
        tf.function(lambda each: cam(each, classes=[0]).heatmaps, autograph=False)(images)
    read = tf.function(lambda each: tf.numpy_function(lambda x: cam(x).heatmaps, [each], "float32"))
    np.testing.assert_array_equal(read(tf.constant(images, tf.float32)), cam(images).heatmaps)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("frozen", [False, True])
def test_what_xla_cannot_compile_runs_without(frozen: bool, caplog: Any) -> None:
    class Written(layers.Layer):
        """Has an operation on strings, which XLA does not compile."""

        def call(self, values: Any) -> Any:
            length = tf.strings.length(tf.strings.as_string(tf.reduce_sum(values)))
            return values * tf.cast(length > 0, tf.float32)

    model, images = network(Written()), pictures()
    cam = GradCAM(model, jit_compile=True)
    expected = GradCAM(model, jit_compile=False)(images, classes=[0]).heatmaps
    explainer = cam.freeze() if frozen else cam
    for _ in range(2):
        found = explainer(images, classes=[0]).heatmaps
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert caplog.text.count("XLA cannot compile") == 1


def test_a_failed_first_call_does_not_spoil_later_ones() -> None:
    model, images = Flattened(), pictures(2, 8, 6, 3)
    model(images)
    cam = GradCAM(model)
    for wrong in (images[0], images[..., :2], images.astype("complex64"), "images"):
        with pytest.raises(UserError):
            cam(wrong, classes=[0])
    np.testing.assert_allclose(cam(images, classes=[1]).scores[:, 0], model(images)[:, 1])
    with pytest.raises(UserError, match="at least one image"):
        cam(images[:0])


class Watched(keras.Model):
    """Has losses of both kinds, moving means, a metric and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3, name="maps", activity_regularizer="l2")
        self.norm, self.dense = layers.BatchNormalization(), layers.Dense(3)
        self.noise = keras.random.SeedGenerator(7)
        self.seen = keras.metrics.Mean()

    def call(self, images: Any) -> Any:
        maps = self.norm(self.conv(images), training=True)
        self.add_loss(ops.mean(maps**2))
        self.seen.update_state(ops.mean(images))
        shift = 1e-4 * keras.random.normal((3,), seed=self.noise)
        return self.dense(ops.mean(maps, axis=(1, 2))) + shift


@pytest.mark.parametrize("called", [True, False])
def test_the_model_stays_as_it_was(called: bool) -> None:
    keras.utils.set_random_seed(0)
    model, images = Watched(), pictures()
    if called:
        model(images)
    before = [variable.numpy() for variable in model.variables]
    losses = [float(each) for each in model.losses]
    cam = GradCAM(model)
    cam(images, classes=[0])
    cam.predict(images)
    if called:
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value, variable.path)
        assert [float(each) for each in model.losses] == losses
    else:
        np.testing.assert_array_equal(model.norm.moving_mean.numpy(), np.zeros(4))
        assert model.noise.state.numpy().tolist() == [7, 0]
        assert float(model.seen.result()) == 0


def test_a_functional_model_keeps_its_losses() -> None:
    image = keras.Input((8, 8, 3))
    maps = layers.Conv2D(4, 3, activity_regularizer="l2")(image)
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(maps)))
    model(pictures(2, 8, 8, 3))
    losses = [float(each) for each in model.losses]
    GradCAM(model).freeze()
    list_layers(model)
    assert [float(each) for each in model.losses] == losses
    assert len(losses) == 1


def test_preprocess_may_resize() -> None:
    model, images = network(shape=(8, 8, 3)), pictures(2, 20, 14, 3)
    resized = tf.image.resize(images, (8, 8)) / 255.0
    cam = GradCAM(model, preprocess=lambda each: tf.image.resize(each, (8, 8)) / 255.0)
    found = cam(images, classes=[0, 1, 2])
    np.testing.assert_allclose(found.scores, model(resized), atol=1e-6)
    expected = GradCAM(model)(resized, classes=[0, 1, 2]).heatmaps
    np.testing.assert_allclose(found.heatmaps, expected, atol=1e-6)
    with pytest.raises(UserError, match="needs a batch axis"):
        cam(images[0])


def test_reshape_must_keep_the_number_of_images() -> None:
    cam = GradCAM(network(), reshape=lambda each: tf.reshape(each, (-1, 4, 8, 4)))
    with pytest.raises(UserError, match=r"\(4, 1, 4, 8\) and scores of the shape \(2, 1\)"):
        cam(pictures(2, 8, 8, 3), classes=[0])


def test_a_prediction_may_come_before_the_first_explanation(nested: keras.Model) -> None:
    cam, images = GradCAM(nested), pictures()
    _, probabilities = cam.predict(images, classes=[1])
    np.testing.assert_allclose(cam(images, classes=[1]).probabilities, probabilities, atol=1e-6)
