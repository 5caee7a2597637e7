"""Guided backpropagation (Springenberg et al., ICLR workshops 2015): gradients through ReLUs.

Each ReLU passes a gradient back only where the gradient is positive and the ReLU was active. ReLUs
occur anywhere in a model, also in functions that are no Keras layers, so the gradient is replaced
by operation type. TensorFlow has one way to do so, `gradient_override_map` of a graph, and only
`tf.compat.v1.gradients` heeds it without side effects: tapes ignore it, and `tf.gradients` ties
operations to devices by name, across replicas. `test_guided_grad_cam_by_hand` in
`tests/heatmaps/test_guided_backpropagation.py` fails if a TensorFlow release changes this.
"""

from typing import Any

import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.forward import ForwardPass, for_each
from kgradcam.heatmaps.inputs import channels_first

_RELUS = ("Relu", "Relu6")
_GRADIENT = "KgradcamGuidedRelu"


def _guided_relu(operation: Any, gradient: Any) -> Any:
    return tf.where((gradient > 0) & (operation.outputs[0] > 0), gradient, 0.0)


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
        if not any(operation.type in _RELUS for operation in graph.get_operations()):
            raise UserError(
                "Guided Grad-CAM needs ReLUs to guide, and this model has none. Other methods "
                "explain it."
            )
        slope = forward.scored.slope(place)
        (gradients,) = tf.compat.v1.gradients(scored.start, forward.inputs, grad_ys=slope)
        axis = 1 if channels_first(forward.inputs) else -1
        return tf.reduce_max(tf.abs(gradients), axis=axis)

    return for_each(of_class, forward.scored.places)
