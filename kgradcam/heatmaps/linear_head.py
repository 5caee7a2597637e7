"""A linear head as one matrix: from a tensor of the trace to the scores of all classes."""

from typing import Any

import numpy as np
import tensorflow as tf

from kgradcam.heatmaps.dataflow import Dataflow
from kgradcam.heatmaps.heads import COPIES


def linear_kernel(outputs: Any, inputs: Any) -> Any:
    """Returns the derivative of scores by the features that they are linear in.

    Args:
        outputs: A symbolic tensor `[batch, outputs]`.
        inputs: The features of each image, `[batch, features]` or with further axes of length 1.

    Returns:
        float32 `[features, outputs]`, the same for all images. `None` where the trace does not
        prove that `outputs` are one dense layer or 1x1 convolution of `inputs`.
    """
    operation = outputs.op
    if operation.type in COPIES and operation.type != "IdentityN":
        return linear_kernel(operation.inputs[0], inputs)
    if operation.type == "Neg":
        kernel = linear_kernel(operation.inputs[0], inputs)
        return None if kernel is None else -kernel
    if operation.type in ("BiasAdd", "AddV2", "Add", "Sub"):
        left, right = operation.inputs
        return None if depends_on(right, inputs) else linear_kernel(left, inputs)
    if operation.type == "ConcatV2":
        kernels = [linear_kernel(each, inputs) for each in operation.inputs[:-1]]
        return None if any(each is None for each in kernels) else tf.concat(kernels, axis=-1)
    if operation.type not in ("MatMul", "Conv2D") or origin(operation.inputs[0]) is not inputs:
        return None
    kernel = operation.inputs[1]
    if depends_on(kernel, inputs):
        return None
    if operation.type == "MatMul":
        if operation.get_attr("transpose_a"):
            return None
        kernel = tf.transpose(kernel) if operation.get_attr("transpose_b") else kernel
    elif kernel.shape[:2] != (1, 1):
        return None
    return tf.reshape(tf.cast(kernel, tf.float32), [-1, kernel.shape[-1] or tf.shape(kernel)[-1]])


def only_mean(feature_maps: Any, start: Any) -> Any:
    """The mean over space of feature maps, if `start` depends on the maps through it alone."""
    space = list(range(1, feature_maps.shape.rank - 1))
    for operation in feature_maps.consumers():
        if operation.type == "Mean" and feature_maps.dtype == tf.float32:
            axes, mean = tf.get_static_value(operation.inputs[1]), operation.outputs[0]
            if axes is not None and sorted(np.ravel(axes).tolist()) == space:
                flow = Dataflow(feature_maps, start)
                readers = [each for each in feature_maps.consumers() if each.outputs[0] in flow]
                if readers == [operation]:
                    return mean
    return None


def depends_on(tensor: Any, source: Any) -> bool:
    """Whether a symbolic tensor is computed from another one."""
    pending, seen = [tensor], {id(tensor)}
    while pending:
        for each in pending.pop().op.inputs:
            if id(each) not in seen:
                seen.add(id(each))
                pending.append(each)
    return id(source) in seen


def origin(tensor: Any) -> Any:
    """The tensor that a symbolic tensor is a copy of, before operations that keep its values."""
    while tensor.op.type in COPIES and tensor.op.type != "IdentityN":
        tensor = tensor.op.inputs[0]
    return tensor
