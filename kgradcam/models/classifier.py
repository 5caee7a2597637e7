"""Image classifiers: a network together with its preprocessing, input size and class names."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kgradcam.devices import require_threads
from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.inputs import own_preprocess
from kgradcam.models import efficientnet_lite, imagenet
from kgradcam.models.model_card import read_card
from kgradcam.models.network import (
    EFFICIENTNET_LITE0,
    IMAGENET,
    is_model_folder,
    keras_applications,
    load_network,
    model_names,
)


@dataclass(frozen=True)
class Classifier:
    """A classifier of RGB images.

    Attributes:
        name: The name or path that it was loaded by.
        model: A Keras model from images `[batch, height, width, 3]` to scores `[batch, classes]`.
        preprocess: Maps a float32 tensor of RGB values in [0, 255] to the input of the model.
        class_names: One name for each output, or `None` if they are unknown.
    """

    name: str
    model: keras.Model
    preprocess: Callable[[Any], Any]
    class_names: tuple[str, ...] | None

    @property
    def image_size(self) -> int | None:
        """Side of the square input in pixels; `None` if the model takes any size."""
        size: int | None = self.model.input_shape[1]
        return size


def load_classifier(
    name: str,
    weights: str | None = IMAGENET,
    image_size: int | None = None,
    preprocess: str | None = None,
    trusted: bool = False,
) -> Classifier:
    """Loads a classifier.

    Args:
        name: `"efficientnet-lite0"`, a network of `keras.applications` in lower case
            (`"resnet50"`), a `.keras` file, or a model folder. The card of a folder holds its
            preprocessing and class names (see `model_card`).
        weights: `"imagenet"`, a weights file, or `None` for random weights; see `load_network`.
        image_size: Side of the square input in pixels. Default: any height and width, which needs
            a network that is convolutional up to a global pooling.
        preprocess: Name of the network whose preprocessing to use; `"none"` passes RGB values in
            [0, 255]. Default: that of the network itself, and `"none"` for a `.keras` file.
        trusted: Allows a `.keras` file to run its own Python code, as `Lambda` layers do.

    Returns:
        The classifier.

    Raises:
        UserError: The model or its weights do not exist, do not fit together, or cannot be
            downloaded; or the network does not take images of that size.

    Example:
        >>> classifier = load_classifier("mobilenet", weights=None)
        >>> classifier.image_size, classifier.class_names[281]
        (None, 'tabby')
    """
    require_threads()
    class_names: tuple[str, ...] | None = None
    own_preprocess = "none" if name.endswith(".keras") else name
    if is_model_folder(name):
        card = read_card(Path(name))
        class_names, own_preprocess = tuple(card["classes"]), card["preprocess"]
    model, missing = load_network(name, weights, trusted)
    if missing:
        raise UserError(
            f"weights={weights!r} lack {len(missing)} layers of {name}, such as {missing[0]}. "
            "Train these layers first: kgradcam train --weights FILE."
        )
    outputs = model.output_shape[-1]
    if class_names is not None and len(class_names) != outputs:
        raise UserError(
            f"The card of {name} names {len(class_names)} classes, but the model has {outputs} "
            "outputs."
        )
    model = _fit_input(model, name, image_size)
    if class_names is None and outputs == len(imagenet.CLASS_NAMES):
        class_names = imagenet.CLASS_NAMES
    return Classifier(
        name=name,
        model=model,
        preprocess=find_preprocessing(preprocess or own_preprocess),
        class_names=class_names,
    )


def default_size(name: str, trusted: bool = False) -> int:
    """Returns the side of the images that a model was made for, as far as it has one; else 224.

    Args:
        name: See `load_classifier`.
        trusted: See `load_classifier`.
    """
    side = None
    if is_model_folder(name):
        side = read_card(Path(name)).get("image_size")
    elif name.endswith(".keras"):
        side = load_network(name, None, trusted)[0].input_shape[1]
    return side if isinstance(side, int) else 224


def find_preprocessing(name: str) -> Callable[[Any], Any]:
    """Returns the preprocessing of a network.

    Args:
        name: Name of the network, or `"none"` for the identity.

    Returns:
        A function from RGB values in [0, 255] to the values that the network was trained on.

    Raises:
        UserError: There is no network of that name.

    Example:
        >>> find_preprocessing("efficientnet-lite0")(255.0)
        1.0
    """
    if name == "none":
        return _unchanged
    if name == EFFICIENTNET_LITE0:
        return efficientnet_lite.preprocess_input
    applications = keras_applications()
    if name not in applications:
        options = ["none", *model_names()]
        raise UserError(
            f"preprocess={name!r} is neither 'none' nor a known network."
            f"{did_you_mean(name, options)}"
        )
    preprocess: Callable[[Any], Any] = applications[name][1].preprocess_input
    return preprocess


def _unchanged(images: Any) -> Any:
    return images


def preprocessing_of(model: Any) -> Callable[[Any], Any] | None:
    """Returns the preprocessing of a model object, where it is known.

    Args:
        model: A Keras model.

    Returns:
        A function from RGB values in [0, 255] to the input of the model: the preprocessor of a
        KerasHub task; that of a network of `keras.applications`, recognized by its name; the
        identity for a model with a `Rescaling` or `Normalization` layer. Otherwise `None`.

    Example:
        >>> import numpy as np
        >>> preprocess = preprocessing_of(keras.applications.MobileNetV2(weights=None))
        >>> float(preprocess(np.float32(255)))
        1.0
    """
    if (preprocessor := own_preprocess(model)) is not None:
        return preprocessor
    # Keras writes mobilenetv2_1.00_224, efficientnetv2-b0 and NASNet, and numbers equal names.
    name = re.sub(r"[^a-z0-9]", "", model.name.lower())
    for known in model_names():
        plain = known.replace("-", "")
        if re.fullmatch(rf"{plain}\d*", name) or (name == "nasnet" and plain.startswith(name)):
            return find_preprocessing(known)
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return find_preprocessing("none") if any(isinstance(e, kinds) for e in _layers(model)) else None


def _layers(model: Any) -> Iterator[Any]:
    """All layers of a model, those of nested models too."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


def _fit_input(model: Any, name: str, image_size: int | None) -> Any:
    """Returns the model with an input of any size, or as it is if its input is `image_size`.

    The result shares all layers and weights with `model`.
    """
    fixed = model.input_shape[1:3]
    if fixed in ((None, None), (image_size, image_size)):
        return model
    larger = [side and 2 * side for side in fixed]
    try:
        # A dense layer on flattened maps accepts an unknown size, but fails with another fixed one.
        for size in (larger, [None, None]):
            model = keras.models.clone_model(
                model, keras.Input((*size, 3)), clone_function=lambda layer: layer
            )
    except ValueError as error:
        wanted = f"{image_size}x{image_size}" if image_size else "any size"
        raise UserError(
            f"{name} takes images of {fixed[0]}x{fixed[1]} only, not of {wanted}. "
            f"Give --image-size {fixed[0]}; with detect also --scale 1."
        ) from error
    return model
