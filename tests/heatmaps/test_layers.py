"""The layers that a model calls: default, paths in nested models, and what is told of each."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.default_layer import list_layers
from kgradcam.heatmaps.layers import find_call, record_calls


def backbone(name: str) -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="first")(inputs)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="last")(x)
    return keras.Model(inputs, keras.layers.MaxPooling2D(name="pool")(x), name=name)


def classifier(features: keras.Model) -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(features(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def test_the_default_is_the_last_map_with_space_that_is_no_pooling() -> None:
    """Which layer?: pytorch-grad-cam #20 #43, tf-explain #97, keras-io #173."""
    calls, default = list_layers(classifier(backbone("backbone")))
    assert default.path == "backbone/last"
    assert default.shape == (4, 4, 6)
    assert [(call.path, call.shape) for call in calls] == [
        ("backbone/first", (8, 8, 4)),
        ("backbone/last", (4, 4, 6)),
        ("backbone/pool", (2, 2, 6)),
    ]


def test_two_levels_of_nesting_make_two_levels_of_path() -> None:
    inner = backbone("inner")
    outer = keras.Sequential([keras.Input((16, 16, 3)), inner], name="outer")
    calls, default = list_layers(classifier(outer))
    assert default.path == "outer/inner/last"
    assert find_call(calls, "first").path == "outer/inner/first"


def test_the_last_part_of_a_path_must_be_unique() -> None:
    inputs = keras.Input((16, 16, 3))
    pooled = [keras.layers.GlobalAveragePooling2D()(backbone(name)(inputs)) for name in ("a", "b")]
    calls, _ = list_layers(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.add(pooled))))
    assert find_call(calls, "b/last").path == "b/last"
    with pytest.raises(UserError, match="'last' is ambiguous: ./last, ./last. Give the whole path"):
        find_call(calls, "last")


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("MobileNetV2", "out_relu", (7, 7, 1280)),
        # The paper's choice for VGG: the last convolution, before its pooling.
        ("VGG16", "block5_conv3", (14, 14, 512)),
        pytest.param("ResNet50", "conv5_block3_out", (7, 7, 2048), marks=pytest.mark.slow),
    ],
)
def test_the_default_of_known_networks(name: str, layer: str, shape: tuple[int, ...]) -> None:
    _, default = list_layers(getattr(keras.applications, name)(weights=None))
    assert (default.path, default.shape) == (layer, shape)


def test_a_failing_model_leaves_keras_as_it_was() -> None:
    class Broken(keras.layers.Layer):
        def call(self, inputs):
            if inputs.shape[0] is None and self.built and getattr(self, "armed", False):
                raise RuntimeError("broken")
            return inputs

    layer = Broken()
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(layer(inputs)))
    model = keras.Model(inputs, x)
    layer.armed = True
    door = keras.Operation.__call__
    with pytest.raises(RuntimeError, match="broken"):
        list_layers(model)
    assert keras.Operation.__call__ is door


def test_a_layer_that_is_called_twice_is_listed_twice() -> None:
    inputs = [keras.Input((16, 16, 3), name=name) for name in ("left", "right")]
    shared = backbone("shared")
    pooled = [keras.layers.GlobalAveragePooling2D()(shared(each)) for each in inputs]
    calls, default = list_layers(
        keras.Model(inputs, keras.layers.Dense(2)(keras.layers.add(pooled)))
    )
    assert [call.path for call in calls if "last" in call.path] == ["shared/last", "shared/last#2"]
    assert default.path == "shared/last#2"


def test_a_map_aside_is_not_the_default() -> None:
    inputs = keras.Input((16, 16, 3))
    maps = keras.layers.Conv2D(2, 3, name="main")(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(maps))

    class Aside(keras.Model):
        """Makes another map after the main one, and throws it away."""

        def __init__(self) -> None:
            super().__init__()
            self.main = keras.Model(inputs, outputs)
            self.extra = keras.layers.Conv2D(4, 3, name="extra")

        def call(self, images):
            result = self.main(images)
            self.extra(images)
            return result

    functional_inputs = keras.Input((16, 16, 3))
    model = keras.Model(functional_inputs, Aside()(functional_inputs))
    calls, default = list_layers(model)
    assert calls[-1].path.endswith("/extra")
    assert default.path.endswith("/main")


def recorded_paths(model: keras.Model) -> list[str]:
    with record_calls(model) as recording:
        model(tf.zeros((1, 16, 16, 3)))
    return [call.path for call in recording.calls]


PATHS = ["a/first", "a/last", "a/pool"]


def test_threads_record_their_own_calls_only() -> None:
    original = keras.Operation.__call__
    models = [classifier(backbone(name)) for name in "abcd"]
    recording, watched = threading.Event(), threading.Event()

    def call_outside() -> None:
        """Calls a model while another thread records."""
        assert recording.wait(60)
        models[1](tf.zeros((1, 16, 16, 3)))
        watched.set()

    outside = threading.Thread(target=call_outside)
    outside.start()
    with record_calls(models[0]) as recorded:
        recording.set()
        assert watched.wait(60)
        models[0](tf.zeros((1, 16, 16, 3)))
    outside.join()
    assert [call.path for call in recorded.calls] == PATHS
    with ThreadPoolExecutor(4) as pool:
        for name, paths in zip("abcd" * 4, pool.map(recorded_paths, models * 4), strict=True):
            assert paths == [path.replace("a/", f"{name}/") for path in PATHS]
    assert keras.Operation.__call__ is original


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_behind_by_an_exception(raised: type[BaseException]) -> None:
    original = keras.Operation.__call__
    model = classifier(backbone("a"))

    def fail(path: str, output: Any) -> Any:
        raise raised

    with pytest.raises(raised), record_calls(model, fail):
        model(tf.zeros((1, 16, 16, 3)))
    assert keras.Operation.__call__ is original
    assert recorded_paths(model) == PATHS


def test_nothing_is_left_behind_by_a_signal(request: pytest.FixtureRequest) -> None:
    # A background job of a shell ignores SIGINT.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    original = keras.Operation.__call__
    model = classifier(backbone("a"))

    def interrupt(path: str, output: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return output

    with pytest.raises(KeyboardInterrupt), record_calls(model, interrupt):
        model(tf.zeros((1, 16, 16, 3)))
    assert keras.Operation.__call__ is original
    assert recorded_paths(model) == PATHS


def test_a_recording_inside_a_recording_restores_the_outer_one() -> None:
    original = keras.Operation.__call__
    model, other = classifier(backbone("a")), classifier(backbone("b"))
    inner: list[list[str]] = []

    def record_another(path: str, output: Any) -> Any:
        if not inner:
            inner.append([])
            inner[0] = recorded_paths(other)
        return output

    with record_calls(model, record_another) as recorded:
        model(tf.zeros((1, 16, 16, 3)))
    assert inner == [["b/first", "b/last", "b/pool"]]
    assert [call.path for call in recorded.calls if call.path in PATHS] == PATHS
    assert keras.Operation.__call__ is original
