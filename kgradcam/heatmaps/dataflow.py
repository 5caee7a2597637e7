"""The operations between the inputs of a model and its scores, in the graph of a trace.

Every question about a layer's output is a question about this graph: which maps a score depends on,
which of them all values pass through, and whether the score reads all of its places.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import tensorflow as tf

_SIZES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "StopGradient")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall", "XlaCallModule")
_BODIES = (*_CALLS, "While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase")
CONVOLUTIONS = (
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative"),
    *("Conv2DBackpropInput", "Conv3DBackpropInputV2"),
)
PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_LOOKUPS = ("ResourceGather", "CudnnRNNV3")


class Dataflow:
    """The operations through which values flow from inputs to scores.

    Shapes, masks and other booleans are no values here: a score does not depend on an image through
    the number of its pixels.

    Attributes:
        operations: The operations in order of creation, which is an order of execution.
    """

    def __init__(self, inputs: Any, scores: Any) -> None:
        """Finds the operations.

        Args:
            inputs: The symbolic inputs of a model, in any structure.
            scores: Symbolic tensors computed from them, in any structure.
        """
        roots, ends = _tensors(inputs), _tensors(scores)
        order = roots[0].graph.get_operations()
        self._place = {operation.name: i for i, operation in enumerate(order)}
        self._roots = [root.op for root in roots]
        self._ends = [end.op.name for end in ends if end.graph is roots[0].graph]
        # Forward from the inputs, then backward from the scores: only paths between them count.
        reached = {id(root) for root in roots}
        forward = []
        for operation in order:
            if operation.type not in _SIZES and any(
                id(each) in reached for each in operation.inputs
            ):
                forward.append(operation)
                reached.update(id(each) for each in operation.outputs if _is_value(each))
        self._reached = reached
        wanted, self.operations = set(self._ends), []
        for operation in (*reversed(forward), *self._roots):
            if operation.name in wanted:
                self.operations.append(operation)
                wanted.update(each.op.name for each in self.inputs(operation))
        self.operations.sort(key=self.place)
        self._names = {operation.name for operation in self.operations}

    def place(self, operation: Any) -> int:
        """Returns the place of an operation in the order of creation."""
        return self._place[operation.name]

    def inputs(self, operation: Any) -> list[Any]:
        """Returns the inputs of an operation that depend on the inputs of the model."""
        if operation.type in _SIZES:
            return []
        return [tensor for tensor in operation.inputs if id(tensor) in self._reached]

    def __contains__(self, tensor: Any) -> bool:
        return id(tensor) in self._reached and tensor.op.name in self._names

    def calls_functions(self) -> bool:
        """Whether a compiled function is called, whose layers are inside another graph."""
        return any(operation.type in _CALLS for operation in self.operations)

    @cached_property
    def learned(self) -> set[str]:
        """The names of operations at or after a product with weights, or a loop."""
        found: set[str] = set()
        for operation in self.operations:
            mixes = operation.type in (*CONVOLUTIONS, *PRODUCTS, *_LOOKUPS, *_BODIES)
            if mixes or any(each.op.name in found for each in self.inputs(operation)):
                found.add(operation.name)
        return found

    def through_all(self, maps: Iterable[Any]) -> set[str]:
        """Returns the names of operations that every value passes on its way to the scores.

        In a residual network these are the sums and the operations after them, not the branches.
        Inputs that are never part of a map, as a vector of metadata, do not count.

        Args:
            maps: The outputs that are maps over places.
        """
        names = self._upstream({each.op.name for each in maps})
        reached = {root.name for root in self._roots if root.name in names}
        farthest = max((self._place[name] for name in reached), default=-1)
        users: dict[str, int] = dict.fromkeys(self._ends, len(self._place))
        live = []
        for operation in self.operations:
            sources = [each.op.name for each in self.inputs(operation) if each.op.name in reached]
            if sources or operation.name in reached:
                reached.add(operation.name)
                live.append(operation)
                for name in sources:
                    users[name] = max(users.get(name, 0), self.place(operation))
        found = set()
        # Every value passes an operation that no earlier value is read after.
        for operation in live:
            if farthest <= self.place(operation):
                found.add(operation.name)
            farthest = max(farthest, users.get(operation.name, 0))
        return found

    @cached_property
    def read_in_part(self) -> set[str]:
        """The names of operations of which the scores read single places only.

        A vision transformer may read its class token alone. After the last attention, the other
        tokens have no gradient; before it they have one.
        """
        parts: set[str] = set()
        readers: dict[str, list[bool]] = {}
        for operation in reversed(self.operations):
            read = readers.get(operation.name, [])
            if read and all(read):
                parts.add(operation.name)
            for tensor in self.inputs(operation):
                part = operation.name in parts and not self._mixes_places(operation)
                readers.setdefault(tensor.op.name, []).append(part or _selects(operation, tensor))
        return parts

    @cached_property
    def per_head(self) -> set[str]:
        """The names of operations inside attention, `[batch, heads, tokens, channels]`.

        They are the operands and the result of a product of two tensors that both depend on the
        input, and operations between them that only rearrange or scale.
        """
        rearranging = ("Reshape", "Transpose", "Softmax", "StridedSlice", "Unpack", "Split")
        passing = (*rearranging, "Mul", "RealDiv", "AddV2", "BiasAdd", "Einsum", "Cast", "Identity")
        found: set[str] = set()
        pending = []
        for operation in self.operations:
            if operation.type in PRODUCTS and len(self.inputs(operation)) > 1:
                found.add(operation.name)
                pending += [each.op for each in self.inputs(operation)]
            elif operation.type in rearranging and operation.outputs[0].shape.rank == 4:
                before = [each for each in self.inputs(operation) if each.shape.rank == 4]
                if any(each.op.name in found for each in before):
                    found.add(operation.name)
        while pending:
            operation = pending.pop()
            rank = operation.outputs[0].shape.rank or 0
            if operation.name not in found and operation.type in passing and rank >= 4:
                found.add(operation.name)
                pending += [each.op for each in self.inputs(operation)]
        return found

    def before(self, tensor: Any) -> Iterator[Any]:
        """Yields the operations that a tensor depends on, the last one first; its own included."""
        names = self._upstream({tensor.op.name})
        return (each for each in reversed(self.operations) if each.name in names)

    def _upstream(self, names: set[str]) -> set[str]:
        found = set(names)
        for operation in reversed(self.operations):
            if operation.name in found:
                found.update(each.op.name for each in self.inputs(operation))
        return found

    def _mixes_places(self, operation: Any) -> bool:
        if operation.type in PRODUCTS:
            return len(self.inputs(operation)) > 1
        return operation.type in (*CONVOLUTIONS, *_BODIES, *_LOOKUPS)


def _selects(operation: Any, tensor: Any) -> bool:
    """Whether an operation selects one place of tokens or of a series, as `tokens[:, 0]`."""
    if tensor.shape.rank != 3:
        return False
    output = operation.outputs[0]
    if operation.type in ("StridedSlice", "Slice", "GatherV2") and output.shape.rank == 3:
        return output.shape[1] == 1 != tensor.shape[1]
    if operation.type == "StridedSlice":
        # Bit 1: the axis of places is reduced to one of them.
        return operation.get_attr("shrink_axis_mask") == 2
    if operation.type == "GatherV2":
        return output.shape.rank == 2 and tf.get_static_value(operation.inputs[2]) in (1, -2)
    return False


def _is_value(tensor: Any) -> bool:
    return tensor.dtype not in (tf.bool, tf.string)


def _tensors(structure: Any) -> list[Any]:
    return [each for each in tf.nest.flatten(structure) if tf.is_tensor(each)]
