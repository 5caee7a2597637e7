"""An explainer whose weights are constants: faster, and fixed.

With constant weights, batch normalizations fold into convolutions, oneDNN packs filters once and
not at each call, and the graph optimizer can lower the precision. The model is not changed: its
computation is traced once more, with the weights among its arguments.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import override

from kgradcam.devices import compile_for_replicas
from kgradcam.heatmaps.computation import Computation, TraceRecord
from kgradcam.heatmaps.explainer import Explainer
from kgradcam.heatmaps.graph_rewriting import (
    CannotFreezeError,
    drop_placeholders,
    operand,
    optimize,
    rename_functions,
)
from kgradcam.heatmaps.inputs import check_inputs
from kgradcam.heatmaps.layers import keep_losses
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.heatmaps.tracing import signature_of

_log = logging.getLogger(__name__)

_MAX_BYTES = 2**31 - 2**24  # a graph is a protocol buffer, and these end at 2 GiB


class FrozenExplainer(Explainer):
    """Explains with the weights that the model had when `GradCAM.freeze` was called.

    It does not follow the model: later changes of its weights have no effect on this explainer. It
    is called as `GradCAM` is. `predict` is frozen in float32 when it is first called, with the same
    weights.

    Attributes:
        model: The model, which may have other weights by now.
        layer: The path of the explained layer, or of each.
        precision: The precision of the forward pass up to the layer: `"float32"`, `"bfloat16"` or
            `"float16"`.
        trace_count: The number of traces: 1, and 1 more after `predict`, on any number of devices.
    """

    def __init__(
        self,
        computation: Computation,
        specs: Any,
        precision: str,
        jit_compile: bool,
        to_be_saved: bool = False,
    ) -> None:
        super().__init__(computation, choose_precision(precision))
        self._to_be_saved = to_be_saved
        self._jit_compile = jit_compile
        self._kept: list[Any] = []
        # Tensors are immutable: an update of a variable copies the buffer that they share.
        self._weights = [variable.value.value() for variable in self.model.variables]
        self._specs = specs
        self._frozen = self._freeze(computation.explain, self.precision)

    @override
    def _prepare(self, images: Any) -> Any:
        return check_inputs(images, self._specs)

    @override
    def _explain(self, inputs: Any, groups: Any) -> Sequence[Any]:
        found: Sequence[Any] = self._frozen(inputs, groups)
        return found

    @override
    def _predict(self, inputs: Any, groups: Any) -> Sequence[Any]:
        found: Sequence[Any] = self._frozen_predict(inputs, groups)
        return found

    @cached_property
    def _frozen_predict(self) -> Callable[..., Any]:
        return self._freeze(self._computation.predict, "float32")

    def _recorded(self, function: Callable[..., tuple[Any, TraceRecord]]) -> Callable[..., Any]:
        def recorded(inputs: Any, groups: Any) -> Any:
            tensors, record = function(inputs, groups)
            self._traces.append(record)
            return tensors

        return recorded

    def _freeze(self, function: Callable[..., Any], precision: str) -> Callable[..., Any]:
        signature = signature_of(self._specs)
        if sum(each.dtype.size * each.shape.num_elements() for each in self._weights) > _MAX_BYTES:
            raise CannotFreezeError(
                f"{self.model.name} cannot be frozen: its weights are larger than a graph may be, "
                "2 GiB."
            )
        try:
            concrete = trace_stateless(
                self._recorded(function), signature, self.model, self._weights
            )
            cut = self._traces[-1].feature_maps
            frozen = constant_weights(concrete, self._weights, cut, precision, self._to_be_saved)
        except CannotFreezeError as error:
            raise CannotFreezeError(f"{self.model.name} cannot be frozen: {error}") from error
        # TensorFlow unregisters the bodies of loops, by name, with the trace that defined them.
        self._kept.append(concrete)
        compiled = compile_for_replicas(
            frozen, signature, self.model.distribute_strategy, self._jit_compile
        )
        compiled.get_concrete_function()
        return compiled


def freeze_if_possible(explainer: Any, precision: str = "float32") -> Explainer:
    """Freezes a `GradCAM`, or returns it unchanged where its model cannot be frozen.

    Args:
        explainer: A `GradCAM`.
        precision: See `GradCAM.freeze`.

    Returns:
        The frozen explainer; or the live one in float32, with the reason in the log.

    Raises:
        UserError: See `GradCAM.freeze`.
    """
    try:
        frozen: Explainer = explainer.freeze(precision)
    except CannotFreezeError as error:
        _log.warning("%s It runs as it is, in float32.", error)
        return explainer
    return frozen


def trace_stateless(
    function: Callable[..., Any], signature: Sequence[Any], model: keras.Model, weights: Any
) -> Any:
    """Traces a function of a model with the weights as further arguments.

    Args:
        function: Maps tensors of `signature` to a flat tuple of tensors.
        signature: The specs of its arguments.
        model: The model that it calls.
        weights: Tensors like the model's variables, in their order.

    Returns:
        A concrete function; its last inputs are the weights.

    Raises:
        CannotFreezeError: The function has a state other than the weights.
    """
    variables = model.variables

    def stateless(arguments: Sequence[Any], values: Sequence[Any]) -> Any:
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            before = [scope.get_current_value(variable) for variable in variables]
            outputs = keep_losses(lambda: function(*arguments))
            after = [scope.get_current_value(variable) for variable in variables]
        if any(old is not new for old, new in zip(before, after, strict=True)):
            raise CannotFreezeError("it changes its variables when it is called.")
        return outputs

    specs = [tf.TensorSpec(value.shape, value.dtype) for value in weights]
    trace = tf.function(stateless, input_signature=[list(signature), specs], autograph=False)
    concrete = trace.get_concrete_function()
    if concrete.graph.captures:
        raise CannotFreezeError("it reads variables, tables or tensors unknown to Keras.")
    for operation in concrete.graph.get_operations():
        # A loop or branch counts as stateful if an operation inside is.
        if operation.op_def.is_stateful and operation.type != "Placeholder":
            raise CannotFreezeError(f"it runs {operation.type}, which may have a state.")
    return concrete


def constant_weights(
    concrete: Any,
    weights: Sequence[Any],
    cut: Sequence[Any],
    precision: str,
    to_be_saved: bool = False,
) -> Callable[..., Any]:
    """Returns a function of tensors, with the weights of a stateless trace as constants.

    Args:
        concrete: The trace, as `trace_stateless` returns it.
        weights: The values of its last inputs.
        cut: Tensors of the trace behind which everything stays in float32.
        precision: See `GradCAM.freeze`.
        to_be_saved: Whether the function will be a part of a SavedModel, and only run there.
    """
    names = [tensor.name for tensor in concrete.inputs]
    arguments, placeholders = names[: -len(weights) or None], names[len(names) - len(weights) :]
    arrays = {
        name.removesuffix(":0"): value.numpy()
        for name, value in zip(placeholders, weights, strict=True)
    }
    graph_def = optimize(concrete.graph, concrete.outputs, cut, arrays, precision)
    if to_be_saved:
        rename_functions(graph_def)
    used = {f"{operand(name)}:0" for node in graph_def.node for name in node.input}
    # The arguments replace these placeholders on import. XLA cannot compile placeholders.
    drop_placeholders(graph_def, {name.removesuffix(":0") for name in arguments})
    fetched = [tensor.name for tensor in concrete.outputs]

    def frozen(*tensors: Any) -> Any:
        given = dict(zip(arguments, tf.nest.flatten(tensors), strict=True))
        return tuple(
            tf.graph_util.import_graph_def(
                graph_def,
                input_map={name: tensor for name, tensor in given.items() if name in used},
                return_elements=fetched,
                name="",
            )
        )

    return frozen
