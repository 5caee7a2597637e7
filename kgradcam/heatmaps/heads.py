"""The head of a classifier: its logits where the trace proves them, and its probabilities.

A symbolic tensor has a reference to the operation that computed it. So a softmax or sigmoid is
found wherever it is written: as an argument of a layer, as a layer, as a function call, or as
arithmetic.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kgradcam.errors import UserError

COPIES = (
    *("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "EnsureShape", "IdentityN"),
    *("PreventGradient", "CheckNumerics", "Snapshot"),
)
"""Operations that keep the values of their first input, and their order."""

_OPAQUE = (
    *("PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While", "StatelessWhile"),
    *("PyFunc", "EagerPyFunc", "XlaLaunch"),
)
# A clip this close to 0 and 1 guards a logarithm; it does not change a probability.
_GUARD = 1e-3


class Head(NamedTuple):
    """The end of a classifier; symbolic tensors.

    Attributes:
        logits: float32 `[batch, outputs]`, the scores: values before a softmax or sigmoid, or the
            model's own outputs where the trace proves no such values.
        probabilities: float32 `[batch, outputs]`: the model's own numbers. For logits without an
            activation, their softmax. NaN for outputs that are no probabilities.
        kind: `"softmax"`, `"sigmoid"` or `"logits"` (without activation). `"outputs"` for
            probabilities without a proven logit, `"values"` for other outputs, as of a regression.
    """

    logits: Any
    probabilities: Any
    kind: str


def find_head(outputs: Any) -> Head:
    """Finds the logits of a model's outputs, and their probabilities.

    Args:
        outputs: A symbolic tensor `[batch, outputs]`.

    Raises:
        UserError: The outputs have another shape.
    """
    if outputs.shape.rank != 2 or outputs.shape[-1] is None:
        raise UserError(
            "For a class to be explained, the model's output must be [batch, classes]. Received: "
            f"{outputs.shape}. For other outputs give score=, a function of the outputs to one "
            "value an image."
        )
    values = tf.cast(outputs, tf.float32)
    count = outputs.shape[-1]
    if (logits := _softmax_logits(outputs, count)) is not None:
        return Head(_as_rows(logits, count), values, "softmax")
    if (logits := _sigmoid_logits(outputs)) is not None:
        return Head(_as_rows(logits, count), values, "sigmoid")
    if (logits := _log_softmax_logits(outputs, count)) is not None:
        return Head(_as_rows(logits, count), tf.exp(values), "softmax")
    low, high = _bounds(outputs)
    if low >= 0 and high <= 1 + 1e-6:
        return Head(values, values, "outputs")
    if _origin(outputs).op.type in _OPAQUE:
        inside = (values >= 0) & (values <= 1)
        return Head(values, tf.where(inside, values, np.float32(np.nan)), "values")
    if count > 1 and (low, high) == (-math.inf, math.inf):
        return Head(values, tf.nn.softmax(values), "logits")
    return Head(values, tf.fill(tf.shape(values), np.float32(np.nan)), "values")


def _as_rows(logits: Any, count: int) -> Any:
    return tf.reshape(tf.cast(logits, tf.float32), [-1, count])


def _origin(tensor: Any) -> Any:
    """The tensor that a symbolic tensor is a copy of, also behind a clip that is a guard."""
    while True:
        operation = tensor.op
        if operation.type in COPIES:
            place = tensor.value_index if operation.type == "IdentityN" else 0
            tensor = operation.inputs[place]
        elif (factor := _constant_operand(tensor)) is not None and (operation.type, factor[1]) in (
            *(("Mul", 1.0), ("RealDiv", 1.0), ("AddV2", 0.0), ("Sub", 0.0)),
        ):
            tensor = factor[0]
        elif (guarded := _guarded(tensor)) is not None:
            tensor = guarded
        else:
            return tensor


def _constant(tensor: Any) -> float | None:
    """The value of a constant with one element, else `None`."""
    value = tf.get_static_value(tensor)
    return float(np.ravel(value)[0]) if value is not None and np.size(value) == 1 else None


def _constant_operand(tensor: Any) -> tuple[Any, float] | None:
    """Splits `x op c`, or `c op x` where the order does not matter, into `x` and `c`."""
    if tensor.op.type not in ("Mul", "AddV2", "Add", "Sub", "RealDiv", "Pow"):
        return None
    left, right = tensor.op.inputs
    if (constant := _constant(right)) is not None:
        return left, constant
    if tensor.op.type in ("Mul", "AddV2", "Add") and (constant := _constant(left)) is not None:
        return right, constant
    return None


def _guarded(tensor: Any) -> Any:
    """The operand of a clip to about [0, 1], or of one of its sides; else `None`."""
    operation = tensor.op
    if operation.type not in ("ClipByValue", "Minimum", "Maximum"):
        return None
    given = [_constant(each) for each in operation.inputs[1:]]
    bounds = [each for each in given if each is not None]
    if len(bounds) < len(given):
        return None
    low = min(bounds) if operation.type != "Minimum" else 0.0
    high = max(bounds) if operation.type != "Maximum" else 1.0
    is_guard = low <= _GUARD and high >= 1 - _GUARD
    inner_low, inner_high = _bounds(operation.inputs[0])
    return operation.inputs[0] if is_guard and inner_low >= 0 and inner_high <= 1 + 1e-6 else None


def _softmax_logits(tensor: Any, count: int) -> Any:
    """`z` if a tensor is the softmax of `z` along its last axis, of `count` entries."""
    tensor = _origin(tensor)
    operation = tensor.op
    if operation.type == "Softmax":
        logits = operation.inputs[0]
    elif operation.type == "Exp":
        logits = _log_softmax_logits(operation.inputs[0], count)
    elif operation.type == "RealDiv" and _is_sum_of(operation.inputs[1], operation.inputs[0]):
        logits = _logarithm(operation.inputs[0])
    else:
        return None
    if logits is None or logits.shape[-1] != count:
        return None
    return _without_maximum(logits)


def _log_softmax_logits(tensor: Any, count: int) -> Any:
    """`z` if a tensor is the logarithm of the softmax of `z`."""
    tensor = _origin(tensor)
    operation = tensor.op
    if operation.type == "LogSoftmax":
        logits = operation.inputs[0]
        return _without_maximum(logits) if logits.shape[-1] == count else None
    if operation.type == "Log":
        return _softmax_logits(operation.inputs[0], count)
    if operation.type == "Sub" and _is_log_sum_exp_of(operation.inputs[1], operation.inputs[0]):
        logits = _without_maximum(operation.inputs[0])
        return logits if logits.shape[-1] == count else None
    return None


def _sigmoid_logits(tensor: Any) -> Any:
    """`z` if each entry of a tensor is the sigmoid of that of `z`; also of parts, concatenated."""
    tensor = _origin(tensor)
    operation = tensor.op
    if operation.type == "Sigmoid":
        return operation.inputs[0]
    if operation.type == "ConcatV2":
        axis = _constant(operation.inputs[-1])
        parts = [_sigmoid_logits(part) for part in operation.inputs[:-1]]
        if axis in (-1, tensor.shape.rank - 1) and all(each is not None for each in parts):
            flat = zip(parts, operation.inputs, strict=False)
            return tf.concat([_as_rows(each, whole.shape[-1]) for each, whole in flat], axis=-1)
        return None
    # 1 / (1 + exp(-z)), and 1 - sigmoid(z) = sigmoid(-z).
    if operation.type == "RealDiv" and _constant(operation.inputs[0]) == 1:
        sum_ = _constant_operand(_origin(operation.inputs[1]))
    elif operation.type in ("Reciprocal", "Inv"):
        sum_ = _constant_operand(_origin(operation.inputs[0]))
    elif operation.type == "Sub" and _constant(operation.inputs[0]) == 1:
        logits = _sigmoid_logits(operation.inputs[1])
        return None if logits is None else -logits
    else:
        return None
    if sum_ is None or sum_[1] != 1 or _origin(sum_[0]).op.type != "Exp":
        return None
    return -_origin(sum_[0]).op.inputs[0]


def _logarithm(tensor: Any) -> Any:
    """The logarithm of a positive tensor, up to a term that its rows share; `None` if unknown."""
    tensor = _origin(tensor)
    operation = tensor.op
    if operation.type in ("Exp", "Softmax"):
        return _without_maximum(operation.inputs[0])
    split = _constant_operand(tensor)
    if split is not None and operation.type in ("Pow", "Mul", "RealDiv"):
        logits = _logarithm(split[0])
        if logits is None:
            return None
        return logits * split[1] if operation.type == "Pow" else logits
    return None


def _is_sum_of(tensor: Any, values: Any) -> bool:
    """Whether a tensor is the sum of `values` along the last axis."""
    operation = _origin(tensor).op
    return (
        operation.type == "Sum"
        and _origin(operation.inputs[0]) is _origin(values)
        and _constant(operation.inputs[1]) in (-1, values.shape.rank - 1)
    )


def _is_maximum_of(tensor: Any, values: Any) -> bool:
    operation = _origin(tensor).op
    if operation.type == "StopGradient":
        return _is_maximum_of(operation.inputs[0], values)
    if operation.type in ("Select", "SelectV2"):  # tf.reduce_logsumexp replaces infinite maxima
        return any(_is_maximum_of(each, values) for each in operation.inputs[1:])
    return operation.type == "Max" and _origin(operation.inputs[0]) is _origin(values)


def _is_log_sum_exp_of(tensor: Any, logits: Any) -> bool:
    """Whether a tensor is `log(sum(exp(logits)))`, with or without a subtracted maximum."""
    operation = _origin(tensor).op
    if operation.type in ("AddV2", "Add"):
        for one, other in (operation.inputs, reversed(list(operation.inputs))):
            if _is_maximum_of(other, logits):
                return _is_log_sum_exp_of(one, logits)
        return False
    if operation.type != "Log" or _origin(operation.inputs[0]).op.type != "Sum":
        return False
    exponential = _origin(_origin(operation.inputs[0]).op.inputs[0])
    if exponential.op.type != "Exp":
        return False
    inner = _origin(_without_maximum(exponential.op.inputs[0]))
    return inner is _origin(_without_maximum(logits))


def _without_maximum(logits: Any) -> Any:
    """`z` for `z - max(z)`: the maximum only prevents overflow."""
    operation = _origin(logits).op
    if operation.type == "Sub" and _is_maximum_of(operation.inputs[1], operation.inputs[0]):
        return operation.inputs[0]
    return logits


def _bounds(tensor: Any) -> tuple[float, float]:
    """An interval that holds all values of a symbolic tensor, by its last operations."""
    while tensor.op.type in COPIES:
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    operation = tensor.op
    if operation.type == "Const":
        value = tf.get_static_value(tensor)
        if value is not None and value.size:
            return float(value.min()), float(value.max())
    rule = _BOUNDS.get(operation.type)
    if rule is None:
        return -math.inf, math.inf
    if operation.type == "RealDiv" and _is_sum_of(operation.inputs[1], operation.inputs[0]):
        low, _ = _bounds(operation.inputs[0])
        return (0.0, 1.0) if low >= 0 else (-math.inf, math.inf)
    inputs = operation.inputs[:-1] if operation.type == "ConcatV2" else operation.inputs
    if operation.type in ("Mean", "Max", "Min", "MaxPool", "AvgPool", "StridedSlice", "GatherV2"):
        inputs = inputs[:1]
    low, high = rule(*map(_bounds, inputs))
    # 0 times infinity is no number; nothing is known there.
    return -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high


_Interval = tuple[float, float]


def _hull(*parts: _Interval) -> _Interval:
    return min(low for low, _ in parts), max(high for _, high in parts)


def _sum(*parts: _Interval) -> _Interval:
    return sum(low for low, _ in parts), sum(high for _, high in parts)


def _product(a: _Interval, b: _Interval) -> _Interval:
    products = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(products), max(products)


def _quotient(a: _Interval, b: _Interval) -> _Interval:
    if b[0] <= 0 <= b[1]:
        return (0.0, math.inf) if a[0] >= 0 and b[0] >= 0 else (-math.inf, math.inf)
    return _product(a, (1 / b[1], 1 / b[0]))


def _power(base: _Interval, exponent: _Interval) -> _Interval:
    if base[0] < 0 or exponent[0] != exponent[1] or exponent[0] <= 0:
        return -math.inf, math.inf
    return base[0] ** exponent[0], base[1] ** exponent[0]


def _exponential(a: _Interval) -> _Interval:
    return math.exp(min(a[0], 700)), math.exp(a[1]) if a[1] < 700 else math.inf


_BOUNDS: dict[str, Callable[..., _Interval]] = {
    **dict.fromkeys(("Softmax", "Sigmoid"), lambda *_: (0.0, 1.0)),
    **dict.fromkeys(("Mean", "Max", "Min", "MaxPool", "AvgPool"), lambda a: a),
    **dict.fromkeys(("StridedSlice", "GatherV2"), lambda a: a),
    **dict.fromkeys(("ConcatV2", "Pack"), _hull),
    **dict.fromkeys(("SelectV2", "Select"), lambda _, a, b: _hull(a, b)),
    **dict.fromkeys(("AddV2", "Add", "AddN"), _sum),
    **dict.fromkeys(("Tanh", "Erf", "Sin", "Cos", "Softsign"), lambda *_: (-1.0, 1.0)),
    "Relu": lambda a: (max(a[0], 0.0), max(a[1], 0.0)),
    "Relu6": lambda a: (min(max(a[0], 0.0), 6.0), min(max(a[1], 0.0), 6.0)),
    "Softplus": lambda _: (0.0, math.inf),
    "LogSoftmax": lambda _: (-math.inf, 0.0),
    "Elu": lambda a: (max(a[0], -1.0), a[1]),
    "Exp": _exponential,
    "Square": lambda _: (0.0, math.inf),
    "Abs": lambda a: (0.0, max(-a[0], a[1])),
    "Sqrt": lambda a: (math.sqrt(max(a[0], 0.0)), math.sqrt(max(a[1], 0.0))),
    "Neg": lambda a: (-a[1], -a[0]),
    "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "Mul": _product,
    "RealDiv": _quotient,
    "Pow": _power,
    "Minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "Maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "ClipByValue": lambda a, b, c: (min(max(a[0], b[0]), c[1]), min(max(a[1], b[0]), c[1])),
}
"""The interval of an operation's result, from those of its inputs."""
