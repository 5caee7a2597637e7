"""Where the channels of a feature map are, and where the tokens of a transformer come from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kgradcam.heatmaps.dataflow import PRODUCTS, Dataflow

_MOST_EXTRA_TOKENS = 16


def channels_first(tensor: Any) -> bool:
    """Returns whether the channels of a map are its axis 1; else they are its last axis.

    Convolutions and pools state their layout. Transpositions move the axis, other operations keep
    it. Keras itself transposes maps with channels first on a CPU.
    """
    moves: list[list[int]] = []
    axis = 1 if keras.config.image_data_format() == "channels_first" else -1
    while tensor is not None:
        operation, rank = tensor.op, tensor.shape.rank
        if operation.type in PRODUCTS:
            axis = -1
            break
        # Keras guesses that of a BiasAdd by sizes, also where height or width equals the channels.
        if "data_format" in operation.node_def.attr and operation.type != "BiasAdd":
            axis = 1 if operation.get_attr("data_format").startswith(b"NC") else -1
            break
        if operation.type == "Transpose":
            order = tf.get_static_value(operation.inputs[1])
            if order is None:
                break
            moves.append([int(each) for each in order])
            tensor = operation.inputs[0]
        elif operation.type == "Reshape":
            tensor = _same_shape(tensor)
            axis = -1 if tensor is None else axis
        else:
            alike = [each for each in operation.inputs if each.shape.rank == rank]
            whole = [each for each in alike if each.shape[1:] == tensor.shape[1:]]
            tensor = next(iter([*whole, *alike]), None)
    for order in reversed(moves):
        axis = order.index(axis % len(order))
    return axis == 1 and not (moves and len(moves[0]) == 2)


def _same_shape(tensor: Any, limit: int = 40) -> Any:
    """The nearest tensor before a reshaped one that has its shape, as before a group norm."""
    pending, seen = [tensor.op], 0
    while pending and seen < limit:
        seen += 1
        for each in pending.pop(0).inputs:
            if each.shape.rank == tensor.shape.rank and each.shape[1:] == tensor.shape[1:]:
                return each
            pending.append(each.op)
    return None


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """Maps tokens `[batch, tokens, channels]` to `[batch, height, width, channels]`.

    Attributes:
        patches: The patch embedding, the last grid before the tokens.
        axes: Its axes of height and width.
        before: The number of tokens before those of patches: class and register tokens.
        extra: The number of tokens that belong to no patch.
    """

    patches: Any
    axes: tuple[int, int]
    before: int
    extra: int

    @property
    def size(self) -> tuple[Any, Any]:
        """Height and width; symbolic where the graph does not fix them."""
        height, width = (
            tf.shape(self.patches)[axis]
            if self.patches.shape[axis] is None
            else self.patches.shape[axis]
            for axis in self.axes
        )
        return height, width

    def __call__(self, tokens: Any) -> Any:
        """Returns the tokens of patches, as a grid."""
        height, width = self.size
        patches = tokens[:, self.before : self.before + height * width]
        return tf.reshape(patches, [tf.shape(tokens)[0], height, width, tokens.shape[-1]])


def find_token_grid(flow: Dataflow, tokens: Any) -> TokenGrid | None:
    """Returns the grid of tokens `[batch, tokens, channels]`, or `None` where there is none.

    It is that of the last map which was flattened to tokens. Tokens that were joined since then,
    as class and register tokens, belong to no place. Tokens of several maps, as of the levels of a
    pyramid, have no grid in common.
    """
    if tokens.shape.rank != 3:
        return None
    joined = []
    for operation in flow.before(tokens):
        if _joins_tokens(operation):
            parts = flow.inputs(operation)
            if (
                len(parts) > 1
                and sum(find_token_grid(flow, each) is not None for each in parts) > 1
            ):
                return None
            joined.append(operation)
        axes = _flattened(operation) if operation.type == "Reshape" else None
        # The heads of attention are no grid, though their sizes may be those of one.
        if axes is None or operation.inputs[0].op.name in flow.per_head:
            continue
        patches = operation.inputs[0]
        count = _product(patches.shape[axis] for axis in axes)
        if count is not None and tokens.shape[1] is not None:
            extra = tokens.shape[1] - count
        else:
            others = [
                each.shape[1] or 0
                for join in joined
                for each in join.inputs[:-1]
                if not _holds(flow.inputs(join), each)
            ]
            extra = sum(others)
        if extra == 0 or (joined and 0 < extra <= _MOST_EXTRA_TOKENS):
            trailing = bool(joined) and _holds(flow.inputs(joined[-1]), joined[-1].inputs[0])
            return TokenGrid(patches, axes, 0 if trailing else extra, extra)
    return None


def _joins_tokens(operation: Any) -> bool:
    if operation.type != "ConcatV2" or operation.outputs[0].shape.rank != 3:
        return False
    return tf.get_static_value(operation.inputs[-1]) in (1, -2)


def _flattened(reshape: Any) -> tuple[int, int] | None:
    """The axes of height and width that a reshaping joins to one axis of tokens."""
    source, result = reshape.inputs[0].shape, reshape.outputs[0].shape
    if result.rank != 3 or source.rank is None or source.rank < 4:
        return None
    if 1 in source[1:3] and 1 in source[2:4]:
        return None
    if source.rank == 4 and source[-1] == result[-1] and source[-1] is not None:
        count = _product(source[1:3])
        if 1 not in source[1:3] and (None in (count, result[1]) or count == result[1]):
            return 1, 2
    channels_kept = source.rank == 4 and source[1] == result[1] is not None
    if channels_kept and _product(source[2:4]) == result[2] is not None:
        return 2, 3
    if source.rank > 4 and _product(source[1:3]) == result[1] is not None:
        return 1, 2
    return None


def _product(sizes: Iterable[int | None]) -> int | None:
    total = 1
    for size in sizes:
        if size is None:
            return None
        total *= size
    return total


def _holds(tensors: Iterable[Any], tensor: Any) -> bool:
    """Membership by identity: symbolic tensors overload `==`."""
    return any(tensor is each for each in tensors)
