"""Image classifiers of KerasHub: `hub:` and the name of a preset, or the folder of one.

KerasHub downloads a preset by itself, once. It is imported only for such a model.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras

from kgradcam.errors import UserError, did_you_mean
from kgradcam.files import read_bounded
from kgradcam.models.keras_objects import find_refused
from kgradcam.models.weights_file import check_hdf5
from kgradcam.progress import redirect_stdout

_PREFIX = "hub:"
_MAX_CONFIG = 2**26
_SIGNS_OF_A_BACKBONE = ("num_classes", "Unable to find a subclass", "image_converter.json")
"""Of the errors that KerasHub raises for a preset without a classification head."""


class Preset(NamedTuple):
    """An image classifier of KerasHub.

    Attributes:
        model: From preprocessed images `[batch, height, width, channels]` to scores.
        preprocess: Maps pixels in [0, 255], in any size, to the input of the model; `None` without
            a preprocessor.
        size: Width and height that its preprocessor resizes images to; `None` if it does not.
        listed: Whether it is a preset of KerasHub's own list.
    """

    model: keras.Model
    preprocess: Callable[[Any], Any] | None
    size: tuple[int, int] | None
    listed: bool


def is_preset(name: str) -> bool:
    """Returns whether a model is named as a preset: `"hub:resnet_50_imagenet"`."""
    return name.startswith(_PREFIX)


def require_preset(name: str) -> str:
    """Raises if there is no such preset; downloads nothing.

    Args:
        name: `"hub:"` and a name of KerasHub's list, or a folder that `save_to_preset` wrote.

    Returns:
        The name or folder.

    Raises:
        UserError: The package is missing, or it has no such preset.
    """
    preset, known = name.removeprefix(_PREFIX), _hub().models.ImageClassifier.presets
    if preset in known or (preset and Path(preset).is_dir()):
        return preset
    if "://" in preset:
        advice = " Download it with huggingface_hub or kagglehub, and give its folder."
    elif preset:
        advice = did_you_mean(preset, known) or f" `--model {_PREFIX}` lists the names."
    else:
        advice = f" Names: {', '.join(sorted(known))}."
    raise UserError(
        f"model={name!r} is neither an image classifier in the list of KerasHub nor a folder with "
        f"one.{advice}"
    )


def load_preset(name: str, trusted: bool = False) -> Preset:
    """Loads a preset.

    Args:
        name: See `require_preset`.
        trusted: Allows a folder to hold other classes than those of Keras and KerasHub.

    Returns:
        The classifier. Its preprocessing does not resize, because kgradcam resizes images itself.

    Raises:
        UserError: There is no such preset, it is no image classifier, it is damaged, it cannot be
            downloaded, or it may run code and is not trusted.
    """
    preset = require_preset(name)
    listed = preset in _hub().models.ImageClassifier.presets
    try:
        if not listed and not trusted:
            _check_folder(Path(preset))
        # The progress of a download is printed to stdout, which is for results.
        with redirect_stdout(sys.stderr):
            task = _hub().models.ImageClassifier.from_preset(preset)
    except UserError:
        raise
    except Exception as error:  # KerasHub, kagglehub and h5py raise errors of many types
        raise UserError(_reason(name, listed, error)) from error
    converter = getattr(task.preprocessor, "image_converter", None)
    size = None
    if converter is not None and converter.image_size:
        size = converter.image_size[1], converter.image_size[0]
        converter.image_size = None
    # A task is cloned by its own configuration, a plain model layer by layer.
    model = keras.Model(task.inputs[0], task.outputs[0], name=task.name)
    return Preset(model, task.preprocessor, size, listed)


def _hub() -> Any:
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(
            f"Models named {_PREFIX}... need KerasHub ({error}): pip install 'kgradcam[hub]'."
        ) from error
    return keras_hub


def _check_folder(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        refused = find_refused(json.loads(read_bounded(path, _MAX_CONFIG)))
        if refused is not None:
            raise UserError(
                f"{path} holds {refused}, which may run code. If you trust its author, give "
                "--trust-model; for a layer of your own give --import MODULE, which defines it."
            )
    for path in sorted(folder.glob("*.h5")):
        check_hdf5(path)


def _reason(name: str, listed: bool, error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if any(sign in line for sign in _SIGNS_OF_A_BACKBONE):
        return f"{name} is a backbone without a head, so it has no classes to explain."
    if listed:
        return f"{name} is not in the cache of kagglehub, and cannot be downloaded: {line}"
    return f"{name} cannot be loaded as an image classifier of KerasHub: {line}"
