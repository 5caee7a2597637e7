"""One forward pass of a model, as an object: inputs, feature maps, scores, gradients, another pass.

A `tf.GradientTape` starts at the explained layer, at the moment when its feature maps exist. So it
records only the operations after the layer: tracing stays fast, and a backward pass ends at the
layer. The default layer is chosen from the graph of the whole model. The latest map is the
likely choice, so its tape is kept; if another map is chosen, the model is traced again.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.dataflow import Dataflow
from kgradcam.heatmaps.default_layer import default_call, token_grid
from kgradcam.heatmaps.geometry import extent_of
from kgradcam.heatmaps.layers import LayerCall, find_call, record_calls
from kgradcam.heatmaps.linear_head import linear_kernel, only_mean
from kgradcam.heatmaps.scores import Score, Scored

_log = logging.getLogger(__name__)

# Keeps small float16 gradients from underflow; a power of two, so that nothing is rounded.
_FLOAT16_SCALE = 1024.0

# Operations that only move or select values: the default layer is never one of theirs.
_MOVES = ("Identity", "Cast", "Reshape", "Transpose", "Pad", "PadV2", "MaxPool", "AvgPool")

Reshape = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """One forward pass, seen at one layer; all tensors are symbolic.

    Attributes:
        model: The explained model.
        inputs: The model's inputs, preprocessed.
        call: The call of the explained layer.
        recorded: The calls of all layers, in order of execution.
        feature_maps: float32 `[batch, height, width, channels]`, the layer's output.
        scored: The scores of the explained classes.
        score: Scores the outputs of `rescore`.
        reshape: Maps the layer's output to `feature_maps`, where it is no grid.
        tape: The record of the operations from the layer to the scores.
        outputs: The outputs of the model that are scored, by their place among all.
    """

    model: keras.Model
    inputs: Any
    call: LayerCall
    recorded: Sequence[LayerCall]
    feature_maps: Any
    scored: Scored
    score: Score
    reshape: Reshape | None
    tape: tf.GradientTape
    outputs: dict[int, Any]

    @property
    def extent(self) -> Any:
        """The part of the image that `feature_maps` cover; see `geometry.extent_of`."""
        return extent_of(self.feature_maps, self.inputs)

    def gradients(self, slope: Any) -> Any:
        """Returns the gradient of a score at the feature maps.

        Args:
            slope: float32 `[batch, outputs]`, see `Scored.slope`.

        Returns:
            float32, the shape of `feature_maps`.

        Raises:
            UserError: The score does not depend on the layer in a differentiable way.
        """
        scale = _FLOAT16_SCALE if self.call.feature_maps.dtype == tf.float16 else 1.0
        gradients = self.tape.gradient(
            self.scored.start, self.call.feature_maps, output_gradients=scale * slope
        )
        if gradients is None:
            raise UserError(
                f"layer={self.call.path!r} has no gradient of the score: the score does not "
                "depend on it, or only through an operation without a gradient (stop_gradient, "
                "integers, argmax). Choose another layer: `kgradcam layers` lists them."
            )
        # Lookups have sparse gradients.
        return as_grid(self.call, tf.convert_to_tensor(gradients), self.reshape) / scale

    def for_each_class(self, function: Callable[[Any], Any]) -> Any:
        """Returns `function(gradients)` for each class, stacked: float32 `[classes, ...]`.

        Args:
            function: Maps the gradient of one class at the feature maps to a tensor.
        """
        scored = self.scored
        return for_each(lambda i: function(self.gradients(scored.slope(i))), scored.places)

    def mean_gradients(self) -> Any:
        """Returns the mean of each class's gradient over space: float32 `[classes, batch, k]`.

        If the network uses the feature maps only through their mean over space, all places have the
        same gradient: that of the mean over the number of places. Then the large gradient is not
        computed. If the scores are linear in the mean, one product serves all classes.
        """
        pooled = None
        if not self.call.channels_first and self.reshape is None:
            pooled = only_mean(self.call.feature_maps, self.scored.start)
        axes = space(self.feature_maps)
        if pooled is None:
            return self.for_each_class(lambda gradients: tf.reduce_mean(gradients, axis=axes))
        shape = tf.shape(self.feature_maps)
        places = tf.cast(tf.reduce_prod(shape[1:-1]), tf.float32)

        kernel = linear_kernel(self.scored.start, pooled)
        if kernel is not None:
            return self._of_groups(kernel) / places

        def at_the_mean(place: Any) -> Any:
            slope = self.scored.slope(place)
            gradients = self.tape.gradient(self.scored.start, pooled, output_gradients=slope)
            if gradients is None:
                gradients = tf.reduce_sum(self.gradients(slope), axis=axes)  # raises the reason
            return tf.reshape(gradients, [shape[0], shape[-1]]) / places

        return for_each(at_the_mean, self.scored.places)

    def _of_groups(self, kernel: Any) -> Any:
        """The slopes of all scores by the inputs of a linear head, `[classes, batch, inputs]`.

        Args:
            kernel: float32 `[inputs, outputs]`.
        """
        # [1 or batch, classes, outputs of a group, inputs]: most often all images share classes.
        columns = tf.gather(tf.transpose(kernel), tf.maximum(self.scored.groups, 0))
        slopes = tf.matmul(self.scored.weights[:, :, tf.newaxis], columns)
        return tf.transpose(tf.squeeze(slopes, axis=2), [1, 0, 2])

    def rescore(self, inputs: Any = None, feature_maps: Any = None) -> Scored:
        """Runs the model again and scores the same classes.

        Args:
            inputs: Other inputs. Default: the same.
            feature_maps: float32, the shape of `feature_maps`, which replace the layer's output.
        """
        if feature_maps is not None and not isinstance(self.call.layer, keras.Operation):
            raise UserError(
                f"layer={self.call.path!r} is an operation in the call of a model, whose output "
                "cannot be replaced. Choose a layer: `kgradcam layers` lists them."
            )

        def tap(path: str, output: Any) -> Any:
            if feature_maps is None or path != self.call.path:
                return output
            maps = _channels_first(feature_maps) if self.call.channels_first else feature_maps
            return tf.cast(maps, output.dtype)

        with record_calls(self.model, tap):
            outputs = self.model(self.inputs if inputs is None else inputs, training=False)
        return self.score(self.model, outputs, self.scored.groups)


def run_forward(
    model: keras.Model,
    inputs: Any,
    layers: Sequence[str] | None,
    score: Score,
    groups: Any,
    reshape: Reshape | None = None,
) -> list[ForwardPass]:
    """Calls a model once, inside a trace, and returns the pass as seen at each layer.

    Args:
        model: The model.
        inputs: Its symbolic inputs.
        layers: The paths of the layers to explain; `None` for the default one.
        score: Scores the outputs.
        groups: See `Score`.
        reshape: See `GradCAM`.

    Raises:
        UserError: A layer does not exist, or the outputs cannot be scored.
    """
    trace = _trace_in_place(model, inputs, layers, score, groups)
    calls = _choose(trace, layers)
    if any(trace.tape_of(call) is None for call in calls):
        # Only now it is known where the tape has to start.
        paths = None if calls[0].layer is None else [call.path for call in calls]  # an input
        written = any(not isinstance(call.layer, keras.Operation) for call in calls)
        trace = _trace_in_place(model, inputs, paths, score, groups, from_inputs=written)
        calls = _choose(trace, paths)
    return [
        ForwardPass(
            model=model,
            inputs=inputs,
            call=call,
            recorded=trace.recorded,
            feature_maps=as_grid(call, call.feature_maps, grid),
            scored=trace.scored,
            score=score,
            reshape=grid,
            tape=trace.tape_of(call),
            outputs=score.scored_outputs(model, trace.outputs),
        )
        for call in calls
        for grid in [reshape or token_grid(call, trace.flow)]
    ]


class _Trace(NamedTuple):
    """One call of a model, with its tapes by the id of the map that each starts at."""

    recorded: list[LayerCall]
    hidden: list[LayerCall]
    outputs: Any
    scored: Scored
    flow: Dataflow
    tapes: dict[int, tf.GradientTape]
    whole: tf.GradientTape | None

    def tape_of(self, call: LayerCall) -> Any:
        return self.tapes.get(id(call.feature_maps), self.whole)


def _choose(trace: _Trace, layers: Sequence[str] | None) -> list[LayerCall]:
    if layers is None:
        return [default_call(trace.recorded, trace.flow, trace.outputs)]
    calls = [find_call(trace.recorded, path, trace.hidden) for path in layers]
    for call in calls:
        if call.feature_maps in trace.flow and call.feature_maps.op.name in trace.flow.read_in_part:
            _log.warning(
                "The score reads single places of layer=%r only, as that of a class token; all "
                "other places have a gradient of 0. The default layer, or one before the last "
                "attention, is read as a whole.",
                call.path,
            )
    return calls


def _trace_in_place(*arguments: Any, from_inputs: bool = False) -> _Trace:
    """Traces a model; again with its `tf.function`s in place, if it calls some."""
    trace = _trace(*arguments, inline=False, from_inputs=from_inputs)
    if trace.flow.calls_functions():
        try:
            return _trace(*arguments, inline=True, from_inputs=from_inputs)
        except (TypeError, ValueError, NotImplementedError):
            # Only its own tracing converts the Python control flow of a tf.function.
            _log.info("A tf.function of the model is not traced in place; its layers are hidden.")
    return trace


def _trace(
    model: keras.Model,
    inputs: Any,
    layers: Sequence[str] | None,
    score: Score,
    groups: Any,
    *,
    inline: bool,
    from_inputs: bool,
) -> _Trace:
    """Calls a model and scores its outputs.

    A tape starts at the map of each of `layers`, or at the latest map if there are none. A map that
    is written in the `call` of a model cannot be watched when it is made: `from_inputs` starts one
    tape at the inputs and at each map, which records more.
    """
    tapes: dict[int, tf.GradientTape] = {}
    graph = tf.nest.flatten(inputs)[0].graph

    def start_tape() -> tf.GradientTape:
        tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        return open_tapes.enter_context(tape)

    def tap(path: str, output: Any) -> Any:
        if output.graph is not graph or id(output) in tapes:
            return output
        if whole is not None:
            whole.watch(output)
        elif layers is not None:
            if any(LayerCall(path, None, output).ends_in(each) for each in layers):
                tapes[id(output)] = start_tape()
                tapes[id(output)].watch(output)
        elif output.op.type not in _MOVES:
            open_tapes.close()
            tapes.clear()
            tapes[id(output)] = start_tape()
            tapes[id(output)].watch(output)
        return output

    with ExitStack() as open_tapes:
        whole = start_tape() if from_inputs else None
        if whole is not None:
            whole.watch([each for each in tf.nest.flatten(inputs) if each.dtype.is_floating])
        with record_calls(model, tap, inline=inline) as recording:
            outputs = model(inputs, training=False)
        scored = score(model, outputs, groups)
    flow = Dataflow(inputs, scored.start)
    recorded = recording.all_calls(flow)
    return _Trace(recorded, recording.hidden, outputs, scored, flow, tapes, whole)


def for_each(function: Callable[[Any], Any], rows: Any) -> Any:
    """Returns `function(row)` for each row, stacked, from a loop in the graph.

    One row at a time, so that peak memory does not grow with the number of rows. Unlike
    `tf.map_fn`, an error inside `function` leaves no state behind in the process.

    Args:
        function: Maps a row to a float32 tensor.
        rows: A tensor; its first axis is looped over.
    """
    count = tf.shape(rows)[0]
    _, results = tf.while_loop(
        lambda i, _: i < count,
        lambda i, results: (i + 1, results.write(i, function(rows[i]))),
        (0, tf.TensorArray(tf.float32, size=count)),
        maximum_iterations=count,
        parallel_iterations=1,
    )
    return results.stack()


def as_grid(call: LayerCall, tensor: Any, reshape: Reshape | None = None) -> Any:
    """Brings a layer's output, or its gradient, to float32 `[batch, height, width, channels]`."""
    tensor = tf.cast(tensor, tf.float32)
    if reshape is None and call.channels_first:
        return tf.transpose(tensor, [0, *range(2, tensor.shape.rank), 1])
    if reshape is None:
        return tensor
    maps = tf.convert_to_tensor(reshape(tensor))
    if (maps.shape.rank or 3) < 3:
        shapes = f"layer={call.path!r}, {tensor.shape}. Received: {maps.shape}."
        raise UserError(f"reshape= must return [batch, height, width, channels] of {shapes}")
    return maps


def space(feature_maps: Any) -> list[int]:
    """Returns the axes between the batch and the channels."""
    return list(range(1, feature_maps.shape.rank - 1))


def _channels_first(tensor: Any) -> Any:
    return tf.transpose(tensor, [0, tensor.shape.rank - 1, *range(1, tensor.shape.rank - 1)])
