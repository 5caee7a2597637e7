"""Guided backpropagation (Springenberg et al., ICLR workshops 2015): gradients through ReLUs.

Each ReLU passes a gradient back only where the gradient is positive and the ReLU was active. Those
that are parts of other activations have their ordinary gradient. ReLUs occur anywhere in a model,
also in functions that are no Keras layers, so the gradient is replaced by operation type.
TensorFlow has one way to do so, `gradient_override_map` of a graph, and only
`tf.compat.v1.gradients` applies it without side effects: tapes ignore it, and `tf.gradients` ties
operations to devices by name, across replicas. `test_guided_grad_cam_by_hand` in
`tests/heatmaps/test_guided_backpropagation.py` fails if a TensorFlow release changes this.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.forward import ForwardPass, for_each
from kgradcam.heatmaps.inputs import channels_first

_RELUS = ("Relu", "Relu6")
_GRADIENT = "KgradcamGuidedRelu"


def _guided_relu(operation: Any, gradient: Any) -> Any:
    output = operation.outputs[0]
    passes = output > 0
    if _is_a_relu(operation):
        passes &= gradient > 0
    elif operation.type == "Relu6":
        passes &= output < 6
    return tf.where(passes, gradient, 0.0)


def _is_a_relu(operation: Any) -> bool:
    """Whether a ReLU is an activation itself, and no part of a hard sigmoid, hard swish or PReLU.

    Those are `relu6(x + 3) / 6`, that times x, and `relu(x) - alpha relu(-x)`.
    """
    if operation.type not in _RELUS:
        return False
    source = operation.inputs[0]
    if source.op.type in ("AddV2", "Add"):
        shifts = [tf.get_static_value(each) for each in source.op.inputs]
        if operation.type == "Relu6" and any(np.size(e) == 1 and e == 3 for e in shifts):
            return False
    if source.op.type == "Neg":
        source = source.op.inputs[0]
        return not any(each.type in _RELUS for each in source.consumers())
    negated = [each.outputs[0] for each in source.consumers() if each.type == "Neg"]
    return not any(user.type in _RELUS for each in negated for user in each.consumers())


tf.RegisterGradient(_GRADIENT)(_guided_relu)


def guided_gradients(forward: ForwardPass) -> Any:
    """Returns the guided gradient of each class at the image.

    Args:
        forward: A forward pass of a model of one image.

    Returns:
        float32 `[classes, batch, height, width]`, the largest absolute value of the color channels.

    Raises:
        UserError: The model has no ReLU.
    """
    if forward.inputs.dtype.is_integer:
        raise UserError(
            "Guided Grad-CAM needs gradients at the image, and this model takes integers, which "
            f"have none. Received: inputs of {forward.inputs.dtype.name}. Other methods explain it."
        )

    def of_class(place: Any) -> Any:
        graph = tf.compat.v1.get_default_graph()
        with graph.gradient_override_map(dict.fromkeys(_RELUS, _GRADIENT)):
            scored = forward.rescore()
        if not any(map(_is_a_relu, graph.get_operations())):
            raise UserError(
                "Guided Grad-CAM needs ReLUs to guide, and this model has none (those inside a "
                "PReLU, hard sigmoid or hard swish do not count). Other methods explain it."
            )
        slope = forward.scored.slope(place)
        (gradients,) = tf.compat.v1.gradients(scored.start, forward.inputs, grad_ys=slope)
        axis = 1 if channels_first(forward.inputs) else -1
        return tf.reduce_max(tf.abs(gradients), axis=axis)

    return for_each(of_class, forward.scored.places)
