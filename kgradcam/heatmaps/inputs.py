"""The inputs of a model: what their specs are, and whether a batch of images fits them."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgradcam.errors import UserError


def input_specs(model: keras.Model) -> Any:
    """Returns the specs of a model's inputs, in its own structure, or `None` if unknown."""
    if not model.built or not getattr(model, "inputs", None):
        return None
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tf.as_dtype(tensor.dtype)), inputs
    )


def specs_of(tensors: Any) -> Any:
    """Returns specs that accept tensors like these in any size; the last axis is kept."""
    return tf.nest.map_structure(
        lambda each: tf.TensorSpec([None] * (each.shape.rank - 1) + each.shape[-1:], each.dtype),
        tensors,
    )


def as_tensors(images: Any) -> Any:
    """Converts images to float32 tensors; integers of 32 and 64 bits are kept, as indices."""

    def convert(values: Any) -> tf.Tensor:
        tensor = tf.convert_to_tensor(values)
        return tensor if tensor.dtype in (tf.int32, tf.int64) else tf.cast(tensor, tf.float32)

    return tf.nest.map_structure(convert, images)


def check_inputs(images: Any, specs: Any) -> Any:
    """Converts a batch to the tensors that a model accepts.

    Args:
        images: An array or tensor, or a list or dict of them.
        specs: The specs of the model's inputs.

    Returns:
        Tensors in the structure and with the dtypes of `specs`.

    Raises:
        UserError: The structure or a shape differs from `specs`, or a value is NaN or infinite.
    """
    try:
        tf.nest.assert_same_structure(specs, images, check_types=False)
        inputs = tf.nest.map_structure(
            lambda spec, each: tf.cast(tf.convert_to_tensor(each), spec.dtype), specs, images
        )
    except (ValueError, TypeError) as error:
        shapes = tf.nest.map_structure(lambda spec: tuple(spec.shape), specs)
        raise UserError(f"images must have the structure {shapes}.") from error
    for spec, tensor in zip(tf.nest.flatten(specs), tf.nest.flatten(inputs), strict=True):
        if not spec.shape.is_compatible_with(tensor.shape):
            raise UserError(
                f"images must have the shape {tuple(spec.shape)}. Received: {tuple(tensor.shape)}."
            )
    for each in tf.nest.flatten(images):
        _require_finite(each)
    return inputs


def _require_finite(images: Any) -> None:
    values = np.asarray(images)
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        first = finite.reshape(len(values), -1).all(axis=1).argmin()
        raise UserError(f"images must be finite. images[{first}] holds NaN or infinite values.")
