"""Which layers a model calls, in what order, with what feature maps.

Keras models come as graphs, as nests of graphs, and as plain Python. What they share is that every
layer runs through `keras.Operation.__call__`: watching that one door while the model is traced
finds each feature map of any model, without rebuilding or changing it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.receptive_field import stride

# Layers that only pick, drop or move values: the map they pass on is explained at its maker.
PASSIVE = (
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D),
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D),
    *(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D),
    *(keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise),
    *(keras.layers.Identity, keras.layers.InputLayer, keras.layers.Permute, keras.layers.Reshape),
)
_tracing = threading.RLock()

Tap = Callable[[str, Any], Any]
"""Receives the path and the feature maps of a call, and returns what the model shall go on with."""


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer that made a feature map.

    Attributes:
        path: The layer's name, behind the names of the models it is nested in:
            `"conv5_block3_out"`, `"backbone/conv5_block3_out"`. The second call of a layer that is
            used several times ends in `"#2"`, in the order in which the model runs them.
        layer: The layer; or the operation, for a sum of residual branches written with `+`.
        feature_maps: Its output, a symbolic tensor `[batch, height, width, channels]`, or with
            another number of axes between the batch and the channels.
        channels_first: Whether its axes are `[batch, channels, height, width]`.
    """

    path: str
    layer: Any
    feature_maps: Any
    channels_first: bool = False

    @property
    def shape(self) -> tuple[int | None, ...]:
        """`(height, width, channels)`; `None` where it depends on the input."""
        axes = tuple(self.feature_maps.shape[1:])
        return (*axes[1:], axes[0]) if self.channels_first else axes


@contextmanager
def record_calls(
    model: keras.Model, tap: Tap = lambda path, feature_maps: feature_maps
) -> Iterator[list[LayerCall]]:
    """Records every call that makes a feature map with space, while `model` is traced.

    `keras.Operation.__call__` is wrapped for the length of the `with` block, one block at a time,
    and only calls made by this thread are recorded.

    Args:
        model: The model about to be called; its own name is left out of the paths.
        tap: Called with each feature map as soon as it exists: to watch it, or to replace it.

    Yields:
        The list of calls, in the order in which they end, filled while the block runs.
    """
    calls: list[LayerCall] = []
    counts: dict[str, int] = {}
    stack: list[Any] = []
    thread = threading.get_ident()
    # Activations and sums do not say in which order their axes are: it is that of the layer before.
    data_format = keras.config.image_data_format()

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal data_format
        if threading.get_ident() != thread:
            return original(layer, *args, **kwargs)
        stack.append(layer)
        try:
            output = original(layer, *args, **kwargs)
        finally:
            stack.pop()
        data_format = getattr(layer, "data_format", data_format)
        made = LayerCall("", layer, output, data_format == "channels_first")
        if _makes_feature_maps(made) and not any(output is each.feature_maps for each in calls):
            path = "/".join(each.name for each in (*stack, layer) if each is not model)
            counts[path] = counts.get(path, 0) + 1
            if counts[path] > 1:
                path = f"{path}#{counts[path]}"
            output = tap(path, output)
            calls.append(replace(made, path=path, feature_maps=output))
        return output

    with _tracing:
        original = keras.Operation.__call__
        keras.Operation.__call__ = call
        try:
            yield calls
        finally:
            keras.Operation.__call__ = original


def _makes_feature_maps(call: LayerCall) -> bool:
    """Whether it is a layer, or a sum of branches, whose output has more than one place."""
    if not isinstance(call.layer, keras.Layer) and type(call.layer).__name__ != "Add":
        return False
    if not tf.is_tensor(call.feature_maps) or not call.feature_maps.dtype.is_floating:
        return False
    return call.feature_maps.shape.rank in (3, 4, 5) and set(call.shape[:-1]) != {1}


def default_call(calls: list[LayerCall], inputs: Any, outputs: Any) -> LayerCall:
    """Returns the last call whose feature map a person would choose.

    It is the last one that leads to an output, is no pooling, dropout or the like, and has as many
    axes as the picture (or the series, or the volume); else one of tokens.

    Args:
        calls: The calls of a trace.
        inputs: The symbolic inputs of the model.
        outputs: Its symbolic outputs.

    Raises:
        UserError: No layer makes a feature map.
    """
    rank = max((tensor.shape.rank or 0 for tensor in tf.nest.flatten(inputs)), default=0)
    leading = _ancestors(outputs)
    active = [
        call
        for call in calls
        if not isinstance(call.layer, PASSIVE) and id(call.feature_maps) in leading
    ]
    for wanted in (rank, 3):
        for call in reversed(active):
            if call.feature_maps.shape.rank == wanted:
                return call
    raise UserError(
        "The model has no layer with a feature map [batch, height, width, channels] larger than "
        "1x1, so there is nothing for Grad-CAM to weigh. Received: a model without such a layer."
    )


def _ancestors(outputs: Any) -> set[int]:
    """The ids of the tensors that some symbolic outputs are computed from, and of themselves."""
    pending = [tensor for tensor in tf.nest.flatten(outputs) if tf.is_tensor(tensor)]
    seen = {id(tensor) for tensor in pending}
    while pending:
        for tensor in pending.pop().op.inputs:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                pending.append(tensor)
    return seen


def finer_calls(calls: list[LayerCall], call: LayerCall, count: int = 2) -> list[LayerCall]:
    """Returns the last calls before `call` at each of the next finer strides.

    Args:
        calls: The calls of a trace.
        call: One of them, with feature maps `[batch, height, width, channels]`.
        count: How many strides.

    Returns:
        The calls, coarser ones first; fewer, or none, where there are no finer maps.
    """
    if call.feature_maps.shape.rank != 4:
        return []
    found: list[LayerCall] = []
    limit = stride(call.feature_maps)
    for each in reversed(calls[: calls.index(call)]):
        if len(found) == count:
            break
        if each.feature_maps.shape.rank == 4 and not isinstance(each.layer, PASSIVE):
            found_stride = stride(each.feature_maps)
            if found_stride < limit:
                found.append(each)
                limit = found_stride
    return found


def find_call(calls: list[LayerCall], path: str) -> LayerCall:
    """Returns the call of the layer at `path`.

    Args:
        calls: The calls of a trace.
        path: A path as in `LayerCall.path`; its last part alone will do where it is unique.

    Raises:
        UserError: No layer has that path, or several end in it.
    """
    for call in calls:
        if call.path == path:
            return call
    matches = [call for call in calls if call.path.endswith("/" + path)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(call.path for call in matches)
        raise UserError(f"layer={path!r} is ambiguous: {several}. Give the whole path.")
    raise UserError(
        f"layer={path!r} is no layer with a feature map of this model."
        f"{did_you_mean(path, [call.path for call in calls])} `kgradcam layers` lists them."
    )


def input_specs(model: keras.Model) -> Any:
    """Returns the specs of a model's inputs, in its own structure, or `None` if unknown."""
    if not model.built or not getattr(model, "inputs", None):
        return None
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tf.as_dtype(tensor.dtype)), inputs
    )


def list_layers(model: keras.Model) -> tuple[list[LayerCall], LayerCall]:
    """Returns the layers of a model that Grad-CAM can explain, and the default one.

    Args:
        model: A built Keras model.

    Returns:
        The calls in order, and the one that `GradCAM(model)` takes.

    Raises:
        UserError: The model is not built, or has no feature map.
    """
    specs = input_specs(model)
    if specs is None:
        raise UserError("model is not built: call it once on a batch of images, then list layers.")
    default = []

    def trace(inputs: Any) -> None:
        with record_calls(model) as calls:
            outputs = model(inputs, training=False)
        default.append(default_call(calls, inputs, outputs))
        recorded.extend(calls)

    recorded: list[LayerCall] = []
    tf.function(trace, autograph=False).get_concrete_function(specs)
    return recorded, default[0]
