"""Image classifiers: a network together with its preprocessing, input size and class names."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from kgradcam.data.images import Size, sides
from kgradcam.devices import require_threads
from kgradcam.errors import UserError
from kgradcam.heatmaps.scores import select_output
from kgradcam.models import imagenet
from kgradcam.models.class_names import read_class_names
from kgradcam.models.hub import is_preset, load_preset
from kgradcam.models.model_card import read_card
from kgradcam.models.network import IMAGENET, is_model_folder, load_network, model_names
from kgradcam.models.preprocessing import (
    application_of,
    describe_preprocessing,
    find_preprocessing,
    preprocessing_name,
)

OWN = "own"
"""As an image size: the input of the model stays as it was built."""
_IMAGENET_SIDE = 224
"""Most networks of ImageNet were trained at this size; others have it in their input shape."""


@dataclass(frozen=True)
class Classifier:
    """A classifier of images.

    Attributes:
        name: The name or path that it was loaded by.
        model: A Keras model from images `[batch, height, width, 1 or 3]` to scores `[batch,
            classes]`.
        preprocess: Maps a float32 tensor of pixels in [0, 255] to the input of the model.
        class_names: One name for each output, or `None` if they are unknown. One output may have
            two: of its classes below and above one half.
        own_size: Width and height in pixels of the images that it was built for or trained on;
            `None` if they are unknown.
        pixels: The preprocessing in words.
    """

    name: str
    model: keras.Model
    preprocess: Callable[[Any], Any]
    class_names: tuple[str, ...] | None
    own_size: tuple[int, int] | None = None
    pixels: str = ""

    @property
    def image_size(self) -> Size | None:
        """Side of the square input, or its width and height; `None` if it takes any size."""
        height, width = self.model.input_shape[1:3]
        return height if height == width else (width, height)

    @property
    def channels(self) -> int:
        """The channels of the images: 1 or 3."""
        return int(self.model.input_shape[-1])

    @property
    def class_count(self) -> int:
        """The number of outputs."""
        return int(self.model.output_shape[-1])

    def resized(self, image_size: Size | None) -> "Classifier":
        """Returns the classifier for images of a size, or of any size; it shares all weights.

        Raises:
            UserError: The network does not take images of that size.
        """
        return replace(self, model=_fit_input(self.model, self.name, image_size))

    def at_own_size(self) -> "Classifier":
        """Returns the classifier with an input of its own size; as it is, if that is unknown."""
        if self.own_size is None or self.image_size is not None:
            return self
        shape = (*self.own_size[::-1], self.channels)
        try:
            return replace(self, model=_with_input(self.model, shape))
        except (TypeError, ValueError):  # a class of the user's own
            return self


def load_classifier(
    name: str,
    weights: str | None = IMAGENET,
    image_size: Size | str | None = None,
    preprocess: str | None = None,
    trusted: bool = False,
    *,
    names: str | None = None,
    output: str | int | None = None,
) -> Classifier:
    """Loads a classifier.

    Args:
        name: `"efficientnet-lite0"`, a network of `keras.applications` in lower case
            (`"resnet50"`), a preset of KerasHub (`"hub:resnet_50_imagenet"`), a `.keras` or `.h5`
            file, or a model folder. The card of a folder holds its preprocessing and class names
            (see `model_card`).
        weights: `"imagenet"`, a weights file, or `None` for random weights; see `load_network`.
        image_size: Side of the square input in pixels, or `(width, height)`; `"own"` keeps the
            input. Default: any height and width, which needs a network that is convolutional up to
            a global pooling.
        preprocess: Name of the network whose preprocessing to use; `"none"` passes pixels in
            [0, 255], `"0..1"` and `"-1..1"` scale them. Default: that of the network itself, see
            `preprocessing_name`; `"none"` where the file does not show it.
        trusted: Allows a model file to run its own Python code, as `Lambda` layers do.
        names: `"imagenet"`, or a file of the names of the outputs; see `read_class_names`. Default:
            those of the card, or of ImageNet for a network of it.
        output: Which of several outputs holds the classes, by name or index.

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
    if is_preset(name):
        return _classifier_of_preset(name, image_size, preprocess, trusted, names)
    model, missing = load_network(name, weights, trusted)
    if missing:
        raise UserError(
            f"weights={weights!r} lack {len(missing)} layers of {name}, such as {missing[0]}. "
            "Train these layers first: kgradcam train --weights FILE."
        )
    card = read_card(Path(name)) if is_model_folder(name) else {}
    model = _with_one_output(model, name, output)
    class_names = _class_names(names, model, name, card)
    own_size = _own_size(model, name, card)
    if image_size != OWN:
        model = _fit_input(model, name, image_size)
    if name in model_names():
        preprocess = preprocess or name
    chosen = preprocess or card.get("preprocess") or preprocessing_name(model)
    return Classifier(
        name=name,
        model=model,
        preprocess=find_preprocessing(chosen or "none"),
        class_names=class_names,
        own_size=own_size,
        pixels=describe_preprocessing(chosen),
    )


def _classifier_of_preset(
    name: str,
    image_size: Size | str | None,
    preprocess: str | None,
    trusted: bool,
    names: str | None,
) -> Classifier:
    preset = load_preset(name, trusted)
    model, outputs = preset.model, preset.model.output_shape[-1]
    if names is None and preset.listed and outputs == len(imagenet.CLASS_NAMES):
        names = IMAGENET
    own_size = preset.size or _own_size(model, name, {})
    if image_size != OWN:
        model = _fit_input(model, name, image_size)
    own = None if preprocess else preset.preprocess
    return Classifier(
        name=name,
        model=model,
        preprocess=own or find_preprocessing(preprocess or "none"),
        class_names=None if names is None else read_class_names(names, outputs),
        own_size=own_size,
        pixels="pixels as in its preset" if own else describe_preprocessing(preprocess),
    )


def takes_any_size(classifier: Classifier) -> bool:
    """Returns whether the model also takes images of other sizes than its own."""
    try:
        classifier.resized(None)
    except UserError:
        return False
    return True


def _with_one_output(model: Any, name: str, output: str | int | None) -> Any:
    """Returns the model with only the output that holds the classes."""
    structure = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    several = isinstance(structure, list | tuple | dict)
    if not several and output is None:
        return model
    output_names = getattr(model, "output_names", ())  # a Sequential has none
    if isinstance(output, str) and output.lstrip("-").isdecimal() and output not in output_names:
        output = int(output)
    outputs = structure if several else [structure]
    try:
        chosen = select_output(outputs, output_names, output)
    except UserError as error:
        raise UserError(f"{name}: {error} On the command line: --output.") from error
    if len(chosen.shape) != 2:
        raise UserError(
            f"{name}: the model's output must be [batch, classes]. Received: "
            f"{tuple(chosen.shape)}. Give another with --output, or in Python score= to GradCAM."
        )
    return keras.Model(model.inputs, chosen, name=model.name) if several else model


def _class_names(
    names: str | None, model: Any, name: str, card: dict[str, Any]
) -> tuple[str, ...] | None:
    outputs = model.output_shape[-1]
    if names is not None:
        return read_class_names(names, outputs)
    if card:
        if len(card["classes"]) != outputs:
            raise UserError(
                f"The card of {name} names {len(card['classes'])} classes, but the model has "
                f"{outputs} outputs."
            )
        return tuple(card["classes"])
    return imagenet_names(model)


def imagenet_names(model: Any) -> tuple[str, ...] | None:
    """Returns the names of ImageNet's classes for a network of it; 1,000 outputs are not enough."""
    outputs = (getattr(model, "output_shape", None) or (None,))[-1]
    is_known = outputs == len(imagenet.CLASS_NAMES) and application_of(model) is not None
    return imagenet.CLASS_NAMES if is_known else None


def _own_size(model: Any, name: str, card: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height: of the input, else of the card, else 224 for a network by name."""
    height, width = model.input_shape[1:3]
    if height and width:
        return width, height
    side = card.get("image_size") or (_IMAGENET_SIDE if name in model_names() else None)
    return (side, side) if side else None


def _with_input(model: Any, shape: tuple[int | None, ...]) -> Any:
    return keras.models.clone_model(model, keras.Input(shape), clone_function=lambda layer: layer)


def _fit_input(model: Any, name: str, image_size: Size | str | None) -> Any:
    """Returns the model with an input of any size, or as it is if its input is `image_size`.

    The result shares all layers and weights with `model`.
    """
    assert not isinstance(image_size, str)
    fixed = model.input_shape[1:3]
    wanted = sides(image_size)[::-1] if image_size else None
    if fixed in ((None, None), wanted):
        return model
    larger = [side and 2 * side for side in fixed]
    channels = model.input_shape[-1]
    try:
        # A dense layer on flattened maps accepts an unknown size, but fails with another fixed one.
        for size in (larger, [None, None]):
            model = _with_input(model, (*size, channels))
    except ValueError as error:
        height, width = fixed
        size_text = f"{wanted[1]}x{wanted[0]}" if wanted else "any size"
        option = height if height == width else f"{width}x{height}"
        raise UserError(
            f"{name} takes images of {width}x{height} only, not of {size_text}. "
            f"Give --image-size {option}; with detect also --scale 1."
        ) from error
    return model
