"""Rewrites the graph of a model whose weights are constants: folds, lowers precision, fills in.

TensorFlow has no public function that runs chosen passes of its graph optimizer (Grappler) on a
graph. So this module relies on `tensorflow.python.grappler.tf_optimizer.OptimizeGraph`, which
`tf.lite` runs too, on the names of its passes, and on `tensorflow.core.protobuf`.
`tests/heatmaps/test_graph_rewriting.py` fails if a TensorFlow release changes them.
"""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.grappler import tf_optimizer

from kgradcam.errors import UserError

_PASSES = {
    "bfloat16": "auto_mixed_precision_onednn_bfloat16",
    "float16": "auto_mixed_precision",
}
_SMALL = 2**14  # elements: vectors, not filters


class CannotFreezeError(UserError):
    """The weights of a model cannot be made constants; the message gives the reason."""


def optimize(
    graph: Any, outputs: Sequence[Any], cut: Sequence[Any], weights: dict[str, Any], precision: str
) -> Any:
    """Makes weights constants, folds them, and lowers the precision of the operations up to `cut`.

    The optimizer's passes see large weights as placeholders: copying them would take most of the
    time.

    Args:
        graph: A graph whose weights are placeholders.
        outputs: The tensors to compute.
        cut: Tensors behind which the graph stays as it is, in float32.
        weights: Arrays by the name of their placeholder; scaled weights are added.
        precision: `"float32"`, `"bfloat16"` or `"float16"`.

    Returns:
        A `GraphDef` in which the weights are constants.

    Raises:
        CannotFreezeError: The optimizer finds no operation to compute in `precision`.
    """
    upstream = _ancestors(cut)
    # The passes neither replace nor lower kept operations: all that follow the cut. Weights are not
    # listed: used ones stay anyway, and unused ones, as a dropout's seed, may go.
    kept = [
        each.name
        for each in graph.get_operations()
        if each.name not in upstream and each.name not in weights
    ]
    kept += [tensor.op.name for tensor in (*outputs, *cut)]
    graph_def = graph.as_graph_def()
    _fill_in(graph_def, {name: array for name, array in weights.items() if array.size <= _SMALL})
    graph_def = _run_passes(graph_def, ["constfold"], kept)
    _fold_into_convolutions(graph_def, weights, set(kept))
    lowering = [] if precision == "float32" else [_PASSES[precision]]
    graph_def = _run_passes(graph_def, [*lowering, "constfold", "remap"], kept)
    if lowering and not any("AutoMixedPrecision" in node.name for node in graph_def.node):
        raise CannotFreezeError(f"the graph optimizer found nothing to compute in {precision}")
    _fill_in(graph_def, weights)
    return graph_def


def _ancestors(tensors: Sequence[Any]) -> set[str]:
    """The names of the operations that some tensors depend on."""
    pending, seen = [tensor.op for tensor in tensors], set()
    while pending:
        operation = pending.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            pending += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return seen


def _run_passes(graph_def: Any, passes: Sequence[str], kept: Sequence[str]) -> Any:
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    rewriting.min_graph_nodes = -1  # small graphs too
    rewriting.optimizers.extend(passes)
    meta_graph = meta_graph_pb2.MetaGraphDef(graph_def=graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def _fill_in(graph_def: Any, weights: dict[str, Any]) -> None:
    """Replaces placeholders, and casts of placeholders, by constants; removes unused ones."""
    for node in graph_def.node:
        if node.op == "Cast" and node.input[0] in weights:
            dtype = tf.as_dtype(node.attr["DstT"].type)
            _make_constant(node, weights[node.input[0]].astype(dtype.as_numpy_dtype))
    used = {operand(name) for node in graph_def.node for name in node.input}
    drop_placeholders(graph_def, weights.keys() - used)
    for node in graph_def.node:
        if node.op == "Placeholder" and node.name in weights:
            _make_constant(node, weights[node.name])


def drop_placeholders(graph_def: Any, placeholders: Set[str]) -> None:
    """Removes placeholders by name."""
    for i, node in reversed(list(enumerate(graph_def.node))):
        if node.op == "Placeholder" and node.name in placeholders:
            del graph_def.node[i]


def rename_functions(graph_def: Any) -> None:
    """Gives the bodies of loops and branches new names.

    Passes rewrite them, but the original trace has functions of the same names, and TensorFlow
    saves no model with both. In this process only the original names can be run.
    """
    functions = graph_def.library.function
    suffix = f"_frozen_{secrets.token_hex(4)}"
    names = {each.signature.name for each in functions}
    for nodes in (graph_def.node, *(each.node_def for each in functions)):
        for node in nodes:
            for value in node.attr.values():
                for each in (value.func, *value.list.func):
                    if each.name in names:
                        each.name += suffix
    for function in functions:
        function.signature.name += suffix


def _make_constant(node: Any, array: Any) -> None:
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))


def _fold_into_convolutions(graph_def: Any, weights: dict[str, Any], kept: set[str]) -> None:
    """Folds scales and shifts into convolutions: `s * (conv(x, w) + b) + t` = `conv(x, sw) + u`.

    The graph optimizer folds them only into a convolution without a bias. Its next pass removes the
    nodes that are unused afterwards.
    """
    nodes = {node.name: node for node in graph_def.node}
    uses = Counter(operand(name) for node in graph_def.node for name in node.input)
    users = {operand(name): node for node in graph_def.node for name in node.input}

    def value(name: str) -> Any:
        if name in weights:
            return weights[name]
        node = nodes.get(name)
        if node is None or node.op != "Const":
            return None
        return tf.make_ndarray(node.attr["value"].tensor)

    def followers(node: Any, channels: int) -> Iterator[tuple[Any, Any]]:
        """The scales and shifts that follow a node, with their constants for each channel."""
        while node.name not in kept and uses[node.name] == 1:
            user = users[node.name]
            others = [name for name in user.input if name != node.name and name[0] != "^"]
            node = user
            if user.op == "Identity" and not others:
                continue
            if user.op not in ("BiasAdd", "Mul", "AddV2") or len(others) != 1:
                return
            constant = value(others[0])
            if constant is None or b"NCHW" in (user.attr[name].s for name in user.attr):
                return
            if constant.ndim and constant.shape[-1] != constant.size:
                return
            if constant.size not in (1, channels):
                return
            yield user, np.broadcast_to(constant.ravel(), channels)

    for node in list(graph_def.node):
        if node.op not in ("Conv2D", "DepthwiseConv2dNative") or node.name in kept:
            continue
        kernel = value(node.input[1])
        if kernel is None or kernel.dtype != np.float32 or node.attr["data_format"].s != b"NHWC":
            continue
        shape = kernel.shape[2:] if node.op == "DepthwiseConv2dNative" else kernel.shape[3:]
        channels = int(np.prod(shape))
        scale, shift = np.ones(channels), np.zeros(channels)
        last = None
        for last, constant in followers(node, channels):
            if last.op == "Mul":
                scale, shift = scale * constant, shift * constant
            else:
                shift = shift + constant
        if last is None or last.op == "BiasAdd":
            continue
        scaled = graph_def.node.add(name=f"{node.name}/scaled", op="Placeholder")
        scaled.attr["dtype"].type = tf.float32.as_datatype_enum
        scaled.attr["shape"].shape.CopyFrom(tf.TensorShape(kernel.shape).as_proto())
        weights[scaled.name] = kernel * scale.reshape(shape).astype(np.float32)
        bias = graph_def.node.add(name=f"{node.name}/shift")
        _make_constant(bias, shift.astype(np.float32))
        # The last operation keeps its name and users; it becomes the bias of the convolution.
        node.input[1] = scaled.name
        last.op = "BiasAdd"
        del last.input[:]
        last.input.extend([node.name, bias.name])
        last.attr["data_format"].s = b"NHWC"


def operand(name: str) -> str:
    """Returns the name of the node that an input of another node refers to."""
    return name.lstrip("^").removesuffix(":0")
