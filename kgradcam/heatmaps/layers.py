"""The layer calls of a model, in order, with their feature maps.

Keras models are graphs, nests of graphs, or plain Python. In all of them every layer runs through
`keras.Operation.__call__`. `record_calls` wraps that method while the model is traced, so it finds
the feature maps of any model without rebuilding or changing it. Keras has no public hook for this.
`tests/heatmaps/test_layers.py` fails if a Keras release calls layers in another way.
"""

import bisect
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.dataflow import CONVOLUTIONS, PRODUCTS, Dataflow
from kgradcam.heatmaps.geometry import stride
from kgradcam.heatmaps.layout import channels_first

_log = logging.getLogger(__name__)

PASSIVE = (
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D),
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D),
    *(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D),
    *(keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise),
    *(keras.layers.Identity, keras.layers.InputLayer, keras.layers.Permute, keras.layers.Reshape),
    *(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D),
    *(keras.layers.Resizing, keras.layers.Rescaling),
)
"""Layers that only select, drop or move values; the default is the layer that computed them."""

_WRITTEN = {
    **dict.fromkeys(("AddV2", "Add", "AddN"), "add"),
    **dict.fromkeys(CONVOLUTIONS, "conv"),
    **dict.fromkeys(PRODUCTS, "matmul"),
    **{"Mul": "multiply", "ConcatV2": "concatenate", "Relu": "relu", "Relu6": "relu6"},
    **{"Elu": "elu", "Selu": "selu", "LeakyRelu": "leaky_relu", "Softplus": "softplus"},
    **{"Tanh": "tanh", "Sigmoid": "sigmoid", "BiasAdd": "add", "FusedBatchNormV3": "batch_norm"},
    **{"Reshape": "reshape", "Transpose": "transpose"},
}
"""The operations of TensorFlow that compute maps outside layers, and how they are named."""

_patch_lock = threading.RLock()


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer whose output is a feature map.

    Attributes:
        path: The layer's name, after the names of the models it is nested in:
            `"conv5_block3_out"`, `"backbone/conv5_block3_out"`. The second call of a shared layer
            ends in `"#2"`, in the order of execution.
        layer: The layer, or the Keras operation; a TensorFlow operation for a sum, a product or an
            activation that is written in `call`.
        feature_maps: Its output, a symbolic tensor `[batch, height, width, channels]`, or with one
            or three spatial axes.
        channels_first: Whether the axes are `[batch, channels, height, width]`.
        aliases: The paths of other layers that return the same tensor: the model or the wrapper
            that the layer is the last one of, a dropout behind it.
    """

    path: str
    layer: Any
    feature_maps: Any
    channels_first: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int | None, ...]:
        """`(height, width, channels)`; `None` where the size depends on the input."""
        axes = tuple(self.feature_maps.shape[1:])
        return (*axes[1:], axes[0]) if self.channels_first else axes

    def ends_in(self, path: str) -> bool:
        """Whether `path` is a path of this call, or the last part of one."""
        return any(each == path or each.endswith(f"/{path}") for each in (self.path, *self.aliases))

    def repeats(self, path: str) -> bool:
        """Whether this is the second or a later call of the layer at `path`."""
        first = [each.rpartition("#")[0] for each in (self.path, *self.aliases)]
        return any(each == path or each.endswith(f"/{path}") for each in first)


Tap = Callable[[str, Any], Any]
"""Receives the path and the output of a call, and returns the output to continue with."""


@dataclass
class Recording:
    """The calls of a model's layers in one trace.

    Attributes:
        calls: The calls that output a feature map, in the order in which they return.
        hidden: Those inside a loop, a branch or a compiled function: other graphs hold their maps.
    """

    calls: list[LayerCall] = field(default_factory=list)
    hidden: list[LayerCall] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _spans: list[tuple[int, int, str, bool]] = field(default_factory=list)

    def number(self, path: str) -> str:
        """Returns a path with the number of the call behind it, from the second on."""
        self._counts[path] = self._counts.get(path, 0) + 1
        return path if self._counts[path] == 1 else f"{path}#{self._counts[path]}"

    def add(self, path: str, layer: Any, output: Any, graph: Any) -> None:
        """Adds a call, or another name where its output is recorded already."""
        calls = self.calls if getattr(output, "graph", graph) is graph else self.hidden
        for i, call in enumerate(calls):
            if call.feature_maps is output:
                calls[i] = replace(call, aliases=(*call.aliases, path))
                return
        calls.append(LayerCall(path, layer, output))

    def add_span(self, start: int, end: int, path: str, leaf: bool) -> None:
        """Adds the range of operations that a call has created, and whether it called others."""
        self._spans.append((start, end, path, leaf))

    def all_calls(self, flow: Dataflow) -> list[LayerCall]:
        """Returns the calls and the maps computed between them, in order of execution.

        Sums, products and activations may be written in the `call` of a model, and are no layers.

        Args:
            flow: The operations of the trace.
        """
        known = {id(call.feature_maps) for call in self.calls}
        heads = flow.per_head
        leaves = sorted((start, end) for start, end, _, leaf in self._spans if leaf)
        found = list(self.calls)
        for operation in flow.operations:
            tensor, place = operation.outputs[0], flow.place(operation)
            if operation.type not in _WRITTEN or id(tensor) in known or not is_map(tensor):
                continue
            before = bisect.bisect_right(leaves, (place, float("inf"))) - 1
            inside = before >= 0 and place < leaves[before][1]
            scaling = operation.type == "Mul" and len(flow.inputs(operation)) < 2
            if inside or scaling or operation.name in heads:
                continue
            outer = [each for each in self._spans if each[0] <= place < each[1]]
            parent = min(outer, key=lambda span: span[1] - span[0])[2] if outer else ""
            name = "/".join(filter(None, (parent, _WRITTEN[operation.type])))
            found.append(LayerCall(self.number(name), operation, tensor))
        found = [replace(call, channels_first=_channels_first(call)) for call in found]
        return sorted(found, key=lambda call: flow.place(call.feature_maps.op))


@contextmanager
def record_calls(
    model: keras.Model, tap: Tap = lambda path, output: output, *, inline: bool = False
) -> Iterator[Recording]:
    """Records every call that outputs a feature map, while `model` is traced.

    `keras.Operation.__call__` is wrapped inside the `with` block, in one block at a time, and only
    calls of the current thread are recorded.

    Args:
        model: The model about to be called; its own name is left out of the paths.
        tap: Called with each feature map, to replace it.
        inline: Whether a `tf.function` inside the model is traced in place, so that the maps of
            its layers belong to the same graph.

    Yields:
        The recording, filled while the block runs.
    """
    recording = Recording()
    stack: list[Any] = []
    callers: set[int] = set()
    thread = threading.get_ident()
    graph = tf.compat.v1.get_default_graph()

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread or not (
            isinstance(layer, keras.Layer) or _is_node(layer, stack)
        ):
            return original(layer, *args, **kwargs)
        callers.add(len(stack))
        stack.append(layer)
        callers.discard(len(stack))
        start = graph.version
        try:
            output = original(layer, *args, **kwargs)
            leaf = len(stack) not in callers
        finally:
            stack.pop()
        path = "/".join(each.name for each in (*stack, layer) if each is not model)
        recording.add_span(start, graph.version, path, leaf)
        if tf.is_tensor(output) and not isinstance(output, tf.Variable) and is_map(output) and path:
            path = recording.number(path)
            output = tap(path, output)
            recording.add(path, layer, output, graph)
        return output

    with _patch_lock:
        original = keras.Operation.__call__
        eager = tf.config.functions_run_eagerly()
        try:
            keras.Operation.__call__ = call
            tf.config.run_functions_eagerly(inline)
            yield recording
        finally:
            keras.Operation.__call__ = original
            tf.config.run_functions_eagerly(eager)


def _is_node(operation: Any, callers: Sequence[Any]) -> bool:
    """Whether an operation is a node of a functional model, and so has a name of its own.

    Functions of `keras.ops` make new operations, with new names, at each call.
    """
    nodes = getattr(callers[-1], "operations", ()) if callers else ()
    return any(operation is each for each in nodes)


def keep_losses(function: Callable[[], Any]) -> Any:
    """Calls a function of a model; the losses that the model has by earlier calls are kept.

    Keras clears those of the outermost layer that is called, which is a Lambda here.
    """
    outcome: list[tuple[Any, Exception | None]] = []

    def run(ignored: Any) -> Any:
        try:
            with tf.name_scope(""):
                outcome.append((function(), None))
        except Exception as error:  # raised below: Keras would rewrite its message
            outcome.append((None, error))
        return ignored

    keras.layers.Lambda(run, dtype="float32")(tf.constant(0.0))
    found, error = outcome.pop()
    if error is not None:
        raise error
    return found


def is_map(tensor: Any) -> bool:
    """Returns whether a tensor has places and channels, and more than one place."""
    if tensor.shape.rank not in (3, 4, 5) or not tensor.dtype.is_floating:
        return False
    return set(tensor.shape[1:-1]) != {1}


def _channels_first(call: LayerCall) -> bool:
    layout = getattr(call.layer, "data_format", None)
    if layout in ("channels_first", "channels_last"):
        return bool(layout == "channels_first")
    return channels_first(call.feature_maps)


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


def find_call(calls: Sequence[LayerCall], path: str, hidden: Sequence[LayerCall] = ()) -> LayerCall:
    """Returns the call of the layer at `path`.

    Args:
        calls: The calls of a trace.
        path: A path as in `LayerCall.path`, or its last part where that is unique.
        hidden: The calls inside loops, branches and compiled functions.

    Raises:
        UserError: No path is or ends in `path`, or several end in it.
    """
    exact = [call for call in calls if path in (call.path, *call.aliases)]
    again = [call for call in calls if call.repeats(path)]
    matches = exact or [call for call in calls if call.ends_in(path)] + again
    if len(matches) == 1:
        if exact and again:
            _log.warning(
                "layer=%r is called %d times. Its first call is explained; the others are %s.",
                *(path, 1 + len(again), ", ".join(call.path for call in again)),
            )
        return matches[0]
    if matches:
        several = ", ".join(call.path for call in matches)
        raise UserError(f"layer={path!r} is ambiguous: {several}. Give the whole path.")
    if any(call.ends_in(path) for call in hidden):
        raise UserError(
            f"layer={path!r} runs inside a loop, a branch or a compiled function (tf.map_fn, "
            "tf.cond, tf.function, a SavedModel), where its feature maps cannot be reached. Choose "
            "a layer before or after it, or call it outside."
        )
    raise UserError(
        f"layer={path!r} is no layer with a feature map of this model."
        f"{did_you_mean(path, [call.path for call in calls])} `kgradcam layers` lists them."
    )
