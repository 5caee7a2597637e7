"""From pixels in 0 to 255 to the inputs of a model: by name, or as the model itself shows it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.inputs import own_preprocess
from kgradcam.models import efficientnet_lite
from kgradcam.models.network import EFFICIENTNET_LITE0, keras_applications, model_names
from kgradcam.models.pixel_range import BYTES, SIGNED, UNIT, pixel_range

NONE = "none"
_PIXELS: dict[str, Callable[[Any], Any]] = {
    NONE: lambda images: images,
    UNIT: lambda images: images / 255.0,
    SIGNED: lambda images: images / 127.5 - 1.0,
}


def find_preprocessing(name: str) -> Callable[[Any], Any]:
    """Returns the preprocessing of a network.

    Args:
        name: Name of the network, `"none"` for the identity, `"0..1"` or `"-1..1"`.

    Returns:
        A function from pixel values in [0, 255] to the values that the network was trained on.

    Raises:
        UserError: There is no network of that name.

    Example:
        >>> find_preprocessing("efficientnet-lite0")(255.0)
        1.0
    """
    if name in _PIXELS:
        return _PIXELS[name]
    if name == EFFICIENTNET_LITE0:
        return efficientnet_lite.preprocess_input
    applications = keras_applications()
    if name not in applications:
        options = [*_PIXELS, *model_names()]
        raise UserError(
            f"preprocess={name!r} is neither {', '.join(_PIXELS)} nor a known network."
            f"{did_you_mean(name, options)}"
        )
    preprocess: Callable[[Any], Any] = applications[name][1].preprocess_input
    return preprocess


def application_of(model: Any) -> str | None:
    """Returns the name of the network that a model is an instance of, by the model's own name."""
    # Keras writes mobilenetv2_1.00_224, efficientnetv2-b0 and NASNet, and numbers equal names.
    name = re.sub(r"[^a-z0-9]", "", model.name.lower())
    for known in model_names():
        plain = known.replace("-", "")
        if re.fullmatch(rf"{plain}\d*", name) or (name == "nasnet" and plain.startswith(name)):
            return known
    return None


def preprocessing_name(model: Any) -> str | None:
    """Returns the name of a model's preprocessing (see `find_preprocessing`), where it shows it.

    Args:
        model: A Keras model.

    Returns:
        The network that it is an instance of; `"none"` or `"0..1"` by its first layers (see
        `pixel_range`), or `"none"` if it has a `Rescaling` or `Normalization` anywhere. Otherwise
        `None`.
    """
    if known := application_of(model):
        return known
    if found := pixel_range(model):
        return NONE if found == BYTES else found
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return NONE if any(isinstance(each, kinds) for each in _layers(model)) else None


def preprocessing_of(model: Any) -> Callable[[Any], Any] | None:
    """Returns the preprocessing of a model object, where it is known.

    Args:
        model: A Keras model.

    Returns:
        A function from RGB values in [0, 255] to the input of the model: the preprocessor of a
        KerasHub task, or that of `preprocessing_name`. Otherwise `None`.

    Example:
        >>> import numpy as np
        >>> preprocess = preprocessing_of(keras.applications.MobileNetV2(weights=None))
        >>> float(preprocess(np.float32(255)))
        1.0
    """
    if (preprocessor := own_preprocess(model)) is not None:
        return preprocessor
    name = preprocessing_name(model)
    return None if name is None else find_preprocessing(name)


def describe_preprocessing(name: str | None) -> str:
    """Returns a preprocessing in words; `None` is an unknown one."""
    if name is None:
        return "pixels in 0..255 (if it was trained on 0..1: --scale-pixels)"
    if name == NONE:
        return "pixels in 0..255"
    return f"pixels in {name}" if name in _PIXELS else f"pixels as for {name}"


def _layers(model: Any) -> Iterator[Any]:
    """All layers of a model, those of nested models too."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)
