"""Which layers a model calls, in what order, with what feature maps; and which one is the default.

Keras models are graphs, nests of graphs, or plain Python. In all of them every layer runs through
`keras.Operation.__call__`. `record_calls` wraps that method while the model is traced, so it finds
the feature maps of any model without rebuilding or changing it. Keras has no public hook for this.
`tests/heatmaps/test_layers.py` fails if a Keras release calls layers in another way.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.geometry import stride
from kgradcam.heatmaps.inputs import input_specs

PASSIVE = (
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D),
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D),
    *(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D),
    *(keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise),
    *(keras.layers.Identity, keras.layers.InputLayer, keras.layers.Permute, keras.layers.Reshape),
)
"""Layers that only select, drop or move values; the default is the layer that computed them."""

_patch_lock = threading.RLock()


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer whose output is a feature map.

    Attributes:
        path: The layer's name, after the names of the models it is nested in:
            `"conv5_block3_out"`, `"backbone/conv5_block3_out"`. The second call of a shared layer
            ends in `"#2"`, in the order of execution.
        layer: The layer; or the Keras operation, for a sum of branches written with `+`.
        feature_maps: Its output, a symbolic tensor `[batch, height, width, channels]`, or with one
            or three spatial axes.
        channels_first: Whether the axes are `[batch, channels, height, width]`.
    """

    path: str
    layer: Any
    feature_maps: Any
    channels_first: bool = False

    @property
    def shape(self) -> tuple[int | None, ...]:
        """`(height, width, channels)`; `None` where the size depends on the input."""
        axes = tuple(self.feature_maps.shape[1:])
        return (*axes[1:], axes[0]) if self.channels_first else axes

    def ends_in(self, path: str) -> bool:
        """Whether `path` is this call's path, or the last part of it."""
        return self.path == path or self.path.endswith(f"/{path}")


Tap = Callable[[LayerCall], Any]
"""Receives a call as soon as its output exists, and returns the output to continue with."""


@contextmanager
def record_calls(
    model: keras.Model, tap: Tap = lambda call: call.feature_maps
) -> Iterator[list[LayerCall]]:
    """Records every call that outputs a feature map, while `model` is traced.

    `keras.Operation.__call__` is wrapped inside the `with` block, in one block at a time, and only
    calls of the current thread are recorded.

    Args:
        model: The model about to be called; its own name is left out of the paths.
        tap: Called with each feature map, to watch it or to replace it.

    Yields:
        The list of calls in the order in which they return, filled while the block runs.
    """
    calls: list[LayerCall] = []
    counts: dict[str, int] = {}
    stack: list[Any] = []
    thread = threading.get_ident()
    # Activations and sums have no data_format: they keep that of the layer before them.
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
        # A nested model returns the output of its last layer, which is recorded already.
        if _is_feature_map(made) and not any(output is each.feature_maps for each in calls):
            path = "/".join(each.name for each in (*stack, layer) if each is not model)
            counts[path] = counts.get(path, 0) + 1
            if counts[path] > 1:
                path = f"{path}#{counts[path]}"
            made = replace(made, path=path)
            output = tap(made)
            calls.append(replace(made, feature_maps=output))
        return output

    with _patch_lock:
        original = keras.Operation.__call__
        try:
            keras.Operation.__call__ = call
            yield calls
        finally:
            keras.Operation.__call__ = original


def _is_feature_map(call: LayerCall) -> bool:
    """Whether the output of a layer, or of a sum of branches, has more than one place."""
    if not isinstance(call.layer, keras.Layer) and type(call.layer).__name__ != "Add":
        return False
    if not tf.is_tensor(call.feature_maps) or not call.feature_maps.dtype.is_floating:
        return False
    return call.feature_maps.shape.rank in (3, 4, 5) and set(call.shape[:-1]) != {1}


def is_better_default(call: LayerCall, best: LayerCall | None, inputs: Any) -> bool:
    """Returns whether a call replaces an earlier one as the default layer.

    Later calls win. Maps with as many axes as the image (or the series, or the volume) win over
    maps of tokens, `[batch, tokens, channels]`. Pooling, dropout and the like never win.

    Args:
        call: A call of a trace.
        best: The best call before it, if any.
        inputs: The symbolic inputs of the model.
    """
    if isinstance(call.layer, PASSIVE):
        return False
    image_rank = max((tensor.shape.rank or 0 for tensor in tf.nest.flatten(inputs)), default=0)
    rank = call.feature_maps.shape.rank
    if rank == image_rank:
        return True
    return rank == 3 and (best is None or best.feature_maps.shape.rank != image_rank)


def default_call(calls: list[LayerCall], inputs: Any, outputs: Any) -> LayerCall:
    """Returns the default layer: the best call that the outputs depend on.

    Args:
        calls: The calls of a trace.
        inputs: The symbolic inputs of the model.
        outputs: Its symbolic outputs.

    Raises:
        UserError: No layer outputs a feature map.
    """
    used = ancestors(outputs)
    best: LayerCall | None = None
    for call in calls:
        if id(call.feature_maps) in used and is_better_default(call, best, inputs):
            best = call
    if best is None:
        raise UserError(
            "The model has no layer with a feature map [batch, height, width, channels] larger "
            "than 1x1, and Grad-CAM needs one. Received: a model without such a layer."
        )
    return best


def ancestors(outputs: Any, beside: Any = None) -> set[int]:
    """Returns the ids of symbolic outputs, and of all tensors that they are computed from.

    Args:
        outputs: A tensor, or a list or dict of them.
        beside: A tensor whose own ancestors are left out, unless they are used elsewhere.
    """
    pending = [tensor for tensor in tf.nest.flatten(outputs) if tf.is_tensor(tensor)]
    seen = {id(tensor) for tensor in pending}
    while pending:
        descendant = pending.pop()
        for tensor in () if descendant is beside else descendant.op.inputs:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                pending.append(tensor)
    return seen


def finer_calls(calls: list[LayerCall], call: LayerCall, count: int = 2) -> list[LayerCall]:
    """Returns the last calls before `call` at each of the next smaller strides.

    Args:
        calls: The calls of a trace.
        call: One of them, with feature maps `[batch, height, width, channels]`.
        count: The number of strides.

    Returns:
        The calls, larger strides first; fewer or none where there are no finer maps.
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
        path: A path as in `LayerCall.path`, or its last part where that is unique.

    Raises:
        UserError: No path is or ends in `path`, or several end in it.
    """
    matches = [call for call in calls if call.path == path]
    matches = matches or [call for call in calls if call.ends_in(path)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(call.path for call in matches)
        raise UserError(f"layer={path!r} is ambiguous: {several}. Give the whole path.")
    raise UserError(
        f"layer={path!r} is no layer with a feature map of this model."
        f"{did_you_mean(path, [call.path for call in calls])} `kgradcam layers` lists them."
    )


def list_layers(model: keras.Model) -> tuple[list[LayerCall], LayerCall]:
    """Lists the layers of a model that Grad-CAM can explain.

    Args:
        model: A built Keras model.

    Returns:
        The calls in order of execution, and the default one of `GradCAM(model)`.

    Raises:
        UserError: The model is not built, or has no feature map.

    Example:
        >>> import keras
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, name="maps"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10),
        ... ])
        >>> calls, default = list_layers(model)
        >>> default.path, default.shape
        ('maps', (6, 6, 4))
    """
    specs = input_specs(model)
    if specs is None:
        raise UserError("model is not built: call it once on a batch of images, then list layers.")
    found: list[tuple[list[LayerCall], LayerCall]] = []

    def trace(inputs: Any) -> None:
        with record_calls(model) as calls:
            outputs = model(inputs, training=False)
        found.append((calls, default_call(calls, inputs, outputs)))

    tf.function(trace, autograph=False).get_concrete_function(specs)
    return found[0]
