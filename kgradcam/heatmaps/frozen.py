"""Functions of a model with its weights as constants, for as long as the weights stay the same.

Where weights are constants, batch normalizations fold into convolutions, oneDNN packs filters once
and not at each call, and the graph optimizer can choose another precision. The model is not
touched: its graph is traced once more, with constants in the place of its variables.
"""

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2

# What tf.lite and convert_variables_to_constants_v2 run; TensorFlow has no public name for it.
from tensorflow.python.grappler import tf_optimizer

from kgradcam.devices import compile_for_replicas
from kgradcam.errors import UserError, did_you_mean

_log = logging.getLogger(__name__)

FREEZE_AFTER = 1000
"""So many images must meet the same weights before they are frozen in float32.

Freezing costs seconds, which ResNet50 at 224 px earns back after about as many images. So whenever
the images end, not much more than twice the time of the better choice was spent on it.
"""

REDUCE_FROM = 500
"""`detect` with `"auto"` reduces the precision of runs of so many images; it freezes at once.

ResNet50 at 224 px earns that back after some 100 images, smaller networks later.
"""

_PASSES = {
    "bfloat16": "auto_mixed_precision_onednn_bfloat16",
    "float16": "auto_mixed_precision",
}
_SMALL = 2**14  # vectors, not filters
_BYTES = 2**31 - 2**24  # a graph is a protocol buffer, and these end at 2 GiB


class CannotFreezeError(Exception):
    """Says why the graph of a model must stay as it is."""


def choose_precision(precision: str) -> str:
    """Returns the precision that `"auto"` means on this machine, or the one that is asked for.

    Args:
        precision: `"float32"`; `"bfloat16"`, on CPUs with AVX512-BF16 or AMX; `"float16"`, on GPUs
            with tensor cores; or `"auto"`: the reduced one that this machine has, else float32.

    Raises:
        UserError: It is none of them, or this machine does not have it.
    """
    has = {"float32": True, "bfloat16": not _gpus() and _cpu_has_bfloat16()}
    has["float16"] = any(_has_tensor_cores(gpu) for gpu in _gpus())
    if precision == "auto":
        return next(name for name in ("float16", "bfloat16", "float32") if has[name])
    if precision not in has:
        raise UserError(
            f"precision={precision!r} is none of auto, {', '.join(has)}."
            f"{did_you_mean(precision, ['auto', *has])}"
        )
    if not has[precision]:
        raise UserError(
            f"precision={precision!r} needs "
            + {
                "bfloat16": "a CPU with AVX512-BF16 or AMX, oneDNN, and no GPU in use",
                "float16": "a GPU with tensor cores",
            }[precision]
            + ". This machine has none; auto takes what it has, float32 always works."
        )
    return precision


def _gpus() -> list[Any]:
    return list(tf.config.get_visible_devices("GPU"))


def _has_tensor_cores(gpu: Any) -> bool:
    details = tf.config.experimental.get_device_details(gpu)
    return details.get("compute_capability", (0, 0)) >= (7, 0)


def _cpu_has_bfloat16() -> bool:
    """Linux says so; elsewhere nobody does."""
    listing = Path("/proc/cpuinfo")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" or not listing.is_file():
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(listing.read_text().split())


def prefers_xla(signature: Any) -> bool:
    """Whether XLA is worth its compilation: on a GPU, for images of one size.

    It compiles once for each shape. On CPU it was measured, and is no faster.
    """
    fixed = all(None not in spec.shape[1:] for spec in tf.nest.flatten(signature))
    return fixed and bool(_gpus())


class Snapshot:
    """What some variables held at one moment, and whether they still do.

    It copies nothing: the snapshot shares the buffers of the variables, and TensorFlow does not
    write to a buffer that somebody else holds. Every update, in place by name or not, then moves
    the variable to a new one (`PrepareToUpdateVariable` in its `training_op_helpers.h`; XLA donates
    no buffer that is shared). So the same address is the same value. At another address, and on a
    GPU, the values themselves are compared.

    It relies on updates that hold the variable's lock from that check to the last write, as all of
    Keras do. TensorFlow's own `ResourceApply...` kernels do not unless `use_locking` is set; a
    thread that runs them while another takes a snapshot races with that as with any read.

    Args:
        variables: Keras variables.

    Attributes:
        values: What they held.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        self._variables = [variable.value for variable in variables]
        self._read = tf.function(
            lambda: [variable.value() for variable in self._variables], autograph=False
        )
        # Not yet by the function: its trace takes longer than all that a single call would gain.
        self.values = [variable.value() for variable in self._variables]

    def take(self) -> None:
        """Notes what the variables hold now."""
        self.values = self._read() if self._variables else []

    def holds(self) -> bool:
        """Whether no variable has changed since; stays false until `take`."""
        now = self._read() if self._variables else []
        if not all(map(_equal, self.values, now)):
            return False
        self.values = now  # equal, and perhaps at other addresses: the old buffers may go
        return True


def _equal(old: Any, new: Any) -> bool:
    if "CPU" in new.device:
        # Both are alive at once: had one of them been copied, their addresses would differ.
        arrays = np.asarray(old), np.asarray(new)
        one, other = (each.__array_interface__["data"][0] for each in arrays)
        if one == other:
            return True
    return bool(tf.reduce_all(tf.equal(old, new)))


class Frozen:
    """A function of tensors and a model's weights, compiled, and frozen once it is worth it.

    Args:
        function: Maps tensors to tensors, by way of the model. It is traced once as it is, and once
            more each time that the weights are frozen.
        signature: The specs of its arguments; the first axis of the first is the batch.
        model: Whose variables are frozen.
        precision: `"float32"` freezes as `freeze` says. Others freeze at once, and after each
            change: a result must not depend on how many came before it.
        freeze: Freezes at once, or never. Default: after `FREEZE_AFTER` images with the same
            weights, since but for the last bits nothing but the speed depends on it.
        jit_compile: Whether XLA compiles; in float32 it then keeps the variables.
        cut: Returns the symbolic tensors of the latest trace behind which all stays float32.

    Attributes:
        freeze_count: How often the weights were frozen.
        obstacle: Why they cannot be, or `None`. The function then runs as it is, in float32.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature: Sequence[Any],
        model: keras.Model,
        *,
        precision: str = "float32",
        freeze: bool | None = None,
        jit_compile: bool = False,
        cut: Callable[[], Sequence[Any]] = list,
    ) -> None:
        self.freeze_count = 0
        self.obstacle: str | None = None
        self._function = function
        self._signature = signature
        self._model = model
        self._precision = precision
        self._freeze_after = {None: FREEZE_AFTER, True: 0, False: math.inf}[freeze]
        self._jit_compile = jit_compile
        self._cut = cut
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._compiled: Any = None
        self._stateless: tuple[Any, Sequence[Any]] | None = None
        self._seen = 0
        self.plain = self._compile(function)

    def __call__(self, *arguments: Any) -> Any:
        """Runs the function with the weights that the model has now."""
        compiled = self._current(int(tf.nest.flatten(arguments)[0].shape[0]))
        return self.plain(*arguments) if compiled is None else compiled(*arguments)

    def _compile(self, function: Callable[..., Any]) -> Any:
        strategy = self._model.distribute_strategy
        return compile_for_replicas(function, self._signature, strategy, self._jit_compile)

    def _current(self, batch: int) -> Any:
        reduced = self._precision != "float32"
        never = self._jit_compile or self._freeze_after == math.inf
        if self.obstacle or (never and not reduced):
            return None
        with self._lock:
            if self._snapshot is None:
                self._snapshot = Snapshot(self._model.variables)
            elif not self._snapshot.holds():
                self._compiled, self._seen = None, 0
                self._snapshot.take()
            if self._compiled is None and (reduced or self._seen >= self._freeze_after):
                try:
                    self._compiled = self._freeze(self._snapshot.values)
                    self.freeze_count += 1
                except CannotFreezeError as error:
                    self.obstacle = str(error)
                    if reduced:
                        _log.warning("%s stays in float32: %s", self._model.name, error)
                    self._snapshot = None
            self._seen += batch
            return self._compiled

    def _freeze(self, values: Sequence[Any]) -> Any:
        if sum(value.dtype.size * value.shape.num_elements() for value in values) > _BYTES:
            raise CannotFreezeError("its weights are larger than a graph may be, 2 GiB")
        if self._stateless is None:
            self._stateless = self._trace(values)
        concrete, cut = self._stateless
        names = [tensor.name for tensor in concrete.inputs]
        arguments = len(names) - len(values)
        weights = {
            name.removesuffix(":0"): value.numpy()
            for name, value in zip(names[arguments:], values, strict=True)
        }
        graph_def = _optimize(concrete.graph, concrete.outputs, cut, weights, self._precision)
        used = {f"{_operand(name)}:0" for node in graph_def.node for name in node.input}
        # Left in the graph, what the arguments replace would be compiled by XLA, which cannot.
        _drop(graph_def, {name.removesuffix(":0") for name in names[:arguments]})

        def imported(*tensors: Any) -> Any:
            given = dict(zip(names[:arguments], tf.nest.flatten(tensors), strict=True))
            given = {name: tensor for name, tensor in given.items() if name in used}
            fetched = [tensor.name for tensor in concrete.outputs]
            outputs = tf.graph_util.import_graph_def(
                graph_def, input_map=given, return_elements=fetched, name=""
            )
            return tf.nest.pack_sequence_as(concrete.structured_outputs, outputs)

        compiled = self._compile(imported)
        compiled.get_concrete_function()  # traced here, under the lock
        return compiled

    def _trace(self, values: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """Traces the function with the weights among its arguments."""
        variables = self._model.variables

        def stateless(arguments: Sequence[Any], weights: Sequence[Any]) -> Any:
            mapping = list(zip(variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                before = [scope.get_current_value(variable) for variable in variables]
                outputs = self._function(*arguments)
                after = [scope.get_current_value(variable) for variable in variables]
            if any(old is not new for old, new in zip(before, after, strict=True)):
                raise CannotFreezeError("it changes its variables when it is called")
            return outputs

        specs = [tf.TensorSpec(value.shape, value.dtype) for value in values]
        signature = [list(self._signature), specs]
        trace = tf.function(stateless, input_signature=signature, autograph=False)
        concrete = trace.get_concrete_function()
        if concrete.graph.captures:
            raise CannotFreezeError("it reads variables, tables or tensors unknown to Keras")
        for operation in concrete.graph.get_operations():
            # A loop or branch counts as stateful, and holds what is.
            if operation.op_def.is_stateful and operation.type not in ("Placeholder",):
                raise CannotFreezeError(f"it runs {operation.type}, which may have a state")
        return concrete, self._cut()


def _optimize(
    graph: Any, outputs: Sequence[Any], cut: Sequence[Any], weights: dict[str, Any], precision: str
) -> Any:
    """Puts weights in their places, folds them, and lowers the precision of what leads to `cut`.

    The passes see large weights as placeholders still: it is their copies that take time.
    """
    upstream = _ancestors(cut)
    # What is kept is neither replaced nor lowered: all that follows the layer.
    # Of its weights those that are used stay for that reason, and a dropout's seed goes.
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
    """The names of the operations that some tensors are computed by."""
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
    """Makes constants of placeholders, and of their casts; those without use are removed."""
    for node in graph_def.node:
        if node.op == "Cast" and node.input[0] in weights:
            dtype = tf.as_dtype(node.attr["DstT"].type)
            _make_constant(node, weights[node.input[0]].astype(dtype.as_numpy_dtype))
    used = {_operand(name) for node in graph_def.node for name in node.input}
    _drop(graph_def, weights.keys() - used)
    for node in graph_def.node:
        if node.op == "Placeholder" and node.name in weights:
            _make_constant(node, weights[node.name])


def _drop(graph_def: Any, placeholders: Set[str]) -> None:
    for i, node in reversed(list(enumerate(graph_def.node))):
        if node.op == "Placeholder" and node.name in placeholders:
            del graph_def.node[i]


def _make_constant(node: Any, array: Any) -> None:
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))


def _fold_into_convolutions(graph_def: Any, weights: dict[str, Any], kept: set[str]) -> None:
    """Scales filters by what follows a convolution: `s * (conv(x, w) + b) + t` = `conv(x, sw) + u`.

    The graph optimizer does so only where no bias stands between. What is left without a use is
    dropped by its next pass.
    """
    nodes = {node.name: node for node in graph_def.node}
    uses = Counter(_operand(name) for node in graph_def.node for name in node.input)
    users = {_operand(name): node for node in graph_def.node for name in node.input}

    def value(name: str) -> Any:
        if name in weights:
            return weights[name]
        node = nodes.get(name)
        if node is None or node.op != "Const":
            return None
        return tf.make_ndarray(node.attr["value"].tensor)

    def followers(node: Any, channels: int) -> Iterator[tuple[Any, Any]]:
        """The scalings and shifts that come next, with their constants by channel."""
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
        # The last operation keeps its name and users, and becomes the bias of the convolution.
        node.input[1] = scaled.name
        last.op = "BiasAdd"
        del last.input[:]
        last.input.extend([node.name, bias.name])
        last.attr["data_format"].s = b"NHWC"


def _operand(name: str) -> str:
    return name.lstrip("^").removesuffix(":0")
