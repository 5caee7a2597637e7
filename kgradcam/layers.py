"""Which layers a model calls, in what order, with what feature maps.

Keras models come as graphs, as nests of graphs, and as plain Python. What they share is that every
layer runs through `keras.Layer.__call__`: watching that one door while the model is traced finds
each feature map of any model, without rebuilding or changing it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean

# Layers that only pick, drop or move values: the map they pass on is explained at its maker.
_PASSIVE = (
    keras.layers.AveragePooling2D,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.InputLayer,
    keras.layers.MaxPooling2D,
    keras.layers.SpatialDropout2D,
    keras.layers.ZeroPadding2D,
)
_tracing = threading.RLock()


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer that made a feature map.

    Attributes:
        path: The layer's name, behind the names of the models it is nested in:
            `"conv5_block3_out"`, `"backbone/conv5_block3_out"`.
        layer: The layer.
        feature_maps: Its output, a symbolic tensor `[batch, height, width, channels]`.
    """

    path: str
    layer: Any
    feature_maps: Any

    @property
    def shape(self) -> tuple[int | None, ...]:
        """`(height, width, channels)`; `None` where it depends on the input."""
        return tuple(self.feature_maps.shape[1:])


@contextmanager
def record_calls(
    model: keras.Model, watch: Callable[[Any], None] = lambda tensor: None
) -> Iterator[list[LayerCall]]:
    """Records every call that makes a feature map with space, while `model` is traced.

    `keras.Layer.__call__` is wrapped for the length of the `with` block, one block at a time, and
    only calls made by this thread are recorded.

    Args:
        model: The model about to be called; its own name is left out of the paths.
        watch: Called with each feature map as soon as it exists (`GradientTape.watch`).

    Yields:
        The list of calls, in the order in which they end, filled while the block runs.
    """
    calls: list[LayerCall] = []
    stack: list[Any] = []
    thread = threading.get_ident()

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return original(layer, *args, **kwargs)
        stack.append(layer)
        try:
            output = original(layer, *args, **kwargs)
        finally:
            stack.pop()
        if _has_space(output) and not any(output is made.feature_maps for made in calls):
            watch(output)
            names = [each.name for each in (*stack, layer) if each is not model]
            calls.append(LayerCall("/".join(names), layer, output))
        return output

    with _tracing:
        original = keras.Layer.__call__
        keras.Layer.__call__ = call
        try:
            yield calls
        finally:
            keras.Layer.__call__ = original


def _has_space(output: Any) -> bool:
    """Whether a layer's output is a feature map of more than 1x1."""
    if not tf.is_tensor(output) or not output.dtype.is_floating or output.shape.rank != 4:
        return False
    return tuple(output.shape[1:3]) != (1, 1)


def default_call(calls: list[LayerCall]) -> LayerCall:
    """Returns the last call whose feature map a person would choose: the deepest with space.

    Raises:
        UserError: No layer makes a feature map.
    """
    for call in reversed(calls):
        if not isinstance(call.layer, _PASSIVE):
            return call
    raise UserError(
        "The model has no layer with a feature map [batch, height, width, channels] larger than "
        "1x1, so there is nothing for Grad-CAM to weigh. Received: a model without such a layer."
    )


def find_call(calls: list[LayerCall], path: str) -> LayerCall:
    """Returns the call of the layer at `path`, the last one if it was called several times.

    Args:
        calls: The calls of a trace.
        path: A path as in `LayerCall.path`; its last part alone will do where it is unique.

    Raises:
        UserError: No layer has that path, or several end in it.
    """
    exact = [call for call in calls if call.path == path]
    if exact:
        return exact[-1]
    matches = {call.path: call for call in calls if call.path.endswith("/" + path)}
    if len(matches) == 1:
        return next(iter(matches.values()))
    if matches:
        raise UserError(f"layer={path!r} is ambiguous: {', '.join(matches)}. Give the whole path.")
    raise UserError(
        f"layer={path!r} is no layer with a feature map of this model."
        f"{did_you_mean(path, [call.path for call in calls])} `kgradcam layers` lists them."
    )


def input_spec(model: keras.Model) -> tf.TensorSpec | None:
    """Returns the spec `[None, height, width, 3]` of an image model's input, or `None` if unknown.

    Raises:
        UserError: The model has several inputs.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    if len(inputs) != 1:
        raise UserError(f"model must have one input, an image. Received: {len(inputs)} inputs.")
    return tf.TensorSpec((None, *inputs[0].shape[1:]), tf.float32)


def list_layers(model: keras.Model) -> tuple[list[LayerCall], LayerCall]:
    """Returns the layers of a model that Grad-CAM can explain, and the default one.

    Args:
        model: A built Keras model with one image input.

    Returns:
        The calls in order, and the one that `GradCAM(model)` takes.

    Raises:
        UserError: The model is not built, or has no feature map.
    """
    spec = input_spec(model)
    if spec is None:
        raise UserError("model is not built: call it once on a batch of images, then list layers.")
    with record_calls(model) as calls:
        tf.function(
            lambda images: model(images, training=False), autograph=False
        ).get_concrete_function(spec)
    return calls, default_call(calls)
