"""The layers that a model calls: default, paths in nested models, and what is told of each."""

import keras
import pytest

from kgradcam.errors import UserError
from kgradcam.heatmaps.layers import find_call, list_layers


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
