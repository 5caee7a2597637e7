"""The inputs of a model: their specs, and whether a batch of images fits them."""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.batches import is_list_of_pictures


def input_specs(model: keras.Model) -> Any:
    """Returns the specs of a model's inputs, in its own structure, or `None` if unknown."""
    if not model.built or not getattr(model, "inputs", None):
        return None
    if isinstance(model, keras.Sequential):
        # One without an Input has the batch size of its first batch in its shape.
        image = model.inputs[0]
        return tf.TensorSpec([None, *image.shape[1:]], tf.as_dtype(image.dtype), image.name)
    inputs = model.input
    return tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tf.as_dtype(tensor.dtype), tensor.name), inputs
    )


def channels_first(images: Any) -> bool:
    """Whether symbolic images are `[batch, channels, height, width]`.

    The channels are the axis of known size; if both ends are known, the shorter one.
    """
    first, last = images.shape[1], images.shape[-1]
    return first is not None and (last is None or first < last)


def specs_of(tensors: Any) -> Any:
    """Returns specs that accept tensors like these in any size; the last axis is kept."""
    return tf.nest.map_structure(
        lambda each: tf.TensorSpec([None] * (each.shape.rank - 1) + each.shape[-1:], each.dtype),
        tensors,
    )


def as_tensors(images: Any) -> Any:
    """Converts images to float32 tensors; integers of 32 and 64 bits are kept, as indices.

    A list of pictures `[height, width, channels]` of one size is a batch.
    """
    if is_list_of_pictures(images):
        images = np.stack([_as_array(each) for each in images])

    def convert(values: Any) -> tf.Tensor:
        tensor = tf.convert_to_tensor(values if tf.is_tensor(values) else _as_array(values))
        return tensor if tensor.dtype in (tf.int32, tf.int64) else tf.cast(tensor, tf.float32)

    return tf.nest.map_structure(convert, images)


def check_inputs(images: Any, specs: Any) -> Any:
    """Converts a batch to the tensors that a model accepts, from any structure that Keras takes.

    Args:
        images: An array or tensor, or a list, tuple or dict of them. For a model of one input also
            a list of images of one size.
        specs: The specs of the model's inputs.

    Returns:
        Tensors in the structure and with the dtypes of `specs`.

    Raises:
        UserError: The structure, a shape or a dtype differs, or a value is NaN or infinite.
    """
    flat_specs = tf.nest.flatten(specs)
    tensors = [
        _as_input(each, spec)
        for each, spec in zip(_in_order(images, specs), flat_specs, strict=True)
    ]
    return tf.nest.pack_sequence_as(specs, tensors)


def _in_order(images: Any, specs: Any) -> list[Any]:
    """The arrays of a batch in the flat order of the model's inputs."""
    flat = tf.nest.flatten(specs)
    if isinstance(images, dict):
        names = list(specs) if isinstance(specs, dict) else [spec.name for spec in flat]
        if isinstance(specs, dict):
            names.sort()  # the order of tf.nest
        if missing := [name for name in names if name not in images]:
            if len(flat) == len(images) == 1:
                return list(images.values())
            raise UserError(
                f"images must be a dict with the inputs {', '.join(map(str, names))}. "
                f"Received: {', '.join(map(str, images))}; without {missing[0]}."
            )
        return [images[name] for name in names]
    if len(flat) == 1:
        return [_one_input(images, flat[0])]
    if isinstance(images, list | tuple) and len(images) == len(flat):
        if isinstance(specs, dict):  # in the order of the model's own inputs
            by_name = dict(zip(specs, images, strict=True))
            return [by_name[name] for name in sorted(specs)]
        return tf.nest.flatten(images) if len(tf.nest.flatten(images)) == len(flat) else [*images]
    shapes = tf.nest.map_structure(lambda spec: tuple(spec.shape), specs)
    raise UserError(
        f"images must be a list or dict for the {len(flat)} inputs {shapes}. "
        f"Received: {_described(images)}."
    )


def _one_input(images: Any, spec: Any) -> Any:
    """The batch of a model of one input: an array, a list of one batch, or a list of images."""
    if not isinstance(images, list | tuple) or not images:
        return images
    arrays = [_as_array(each) for each in images]
    if len(arrays) == 1 and arrays[0].ndim == spec.shape.rank:
        return arrays[0]
    if len(arrays) == 2 and arrays[0].ndim == spec.shape.rank and arrays[1].ndim <= 2:
        raise UserError(
            "images must be one batch. Received: two arrays, as of a batch (images, labels). Give "
            "the first of them."
        )
    shapes = sorted({each.shape for each in arrays})
    if len(shapes) > 1:
        raise UserError(
            f"images must have one size. Received: {', '.join(map(str, shapes[:3]))}. Resize them, "
            "or explain them one by one."
        )
    return np.stack(arrays)


def _as_array(values: Any) -> Any:
    """An array of numbers, from anything that NumPy or TensorFlow converts."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind not in "biuf" and array.dtype != tf.bfloat16.as_numpy_dtype:
        raise UserError(
            f"images must be arrays of integers or floats. Received: {_described(values)}."
        )
    return array.astype(np.float64) if array.dtype == np.longdouble else array


def _as_input(values: Any, spec: Any) -> tf.Tensor:
    array = _as_array(values)
    if not spec.shape.is_compatible_with(array.shape):
        raise UserError(
            f"images must have the shape {tuple(spec.shape)}. Received: {array.shape}."
            f"{_advice(spec.shape, array.shape)}"
        )
    if not len(array):
        raise UserError(f"images must hold at least one image. Received: the shape {array.shape}.")
    tensor = tf.cast(tf.convert_to_tensor(values if tf.is_tensor(values) else array), spec.dtype)
    if array.dtype.kind not in "biu":
        # After the conversion: a float64 may be too large for float32.
        finite = np.isfinite(np.asarray(tf.cast(tensor, tf.float32)))
        finite &= np.isfinite(array.astype(np.float64, copy=False))
        if not finite.all():
            first = finite.reshape(len(array), -1).all(axis=1).argmin()
            raise UserError(f"images must be finite. images[{first}] holds NaN or infinite values.")
    return tensor


def _advice(wanted: Any, shape: tuple[int, ...]) -> str:
    """A sentence on how to make a batch of a shape fit, where that is plain."""
    if wanted[1:].is_compatible_with(shape):
        return " A single image needs a batch axis: images[np.newaxis]."
    if len(shape) != 4 or wanted.rank != 4:
        return ""
    if wanted[-1:].is_compatible_with(shape[-1:]):
        return " Resize them, or give preprocess= that does: a function of the images."
    if shape[-1] == 1 and wanted[-1] == 3:
        return " Grey images become RGB by np.repeat(images, 3, axis=-1)."
    return ""


def _described(values: Any) -> str:
    dtype, shape = getattr(values, "dtype", None), getattr(values, "shape", None)
    kind = f"{type(values).__module__}.{type(values).__name__}".removeprefix("builtins.")
    return kind if dtype is None else f"{kind} of {dtype}, shape {shape}"


def own_preprocess(model: Any) -> Any:
    """Returns the preprocessing in `predict` of a KerasHub task, or `None` for other models."""
    is_task = hasattr(model, "preprocess_samples")
    return getattr(model, "preprocessor", None) if is_task else None


def check_model(model: Any) -> None:
    """Checks that an object is a Keras 3 model.

    Raises:
        UserError: It is something else; the message names its type and how to convert it.
    """
    if isinstance(model, keras.Model):
        return
    module = type(model).__module__
    if isinstance(model, str | os.PathLike):
        advice = "Load it: keras.models.load_model(path)."
    elif model is None:
        advice = "load_weights and compile return None; give the model itself."
    elif module.startswith(("tf_keras", "tensorflow.python.keras", "keras.src.engine")):
        advice = "A model of tf_keras: save it, and load the file with keras.models.load_model."
    elif isinstance(model, keras.Layer):
        advice = "A layer: put it into keras.Sequential([keras.Input(shape), layer])."
    elif isinstance(getattr(model, "model", None), keras.Model):
        advice = "Its attribute model is one: give that."
    elif isinstance(model, tf.Module) or hasattr(model, "signatures"):
        advice = "The layers of a SavedModel cannot be reached. Rebuild the model in Keras."
    else:
        advice = "Write its computation as the call of a keras.Model."
    raise UserError(f"model must be a Keras model. {advice} Received: {_described(model)}.")
