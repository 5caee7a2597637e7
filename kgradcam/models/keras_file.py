"""`.keras` files that somebody else made: what they ask for is looked at before Keras opens them.

Such a file is a zip of weights and of `config.json`, which names the class of each layer. A layer
may be Python code, and Keras' safe mode does not stop all of it: before Keras 3.9 a configuration
could call any function of any module (CVE-2025-1550), before 3.11 those of Keras that write files
or end the safe mode (CVE-2025-8747, CVE-2025-9906), before 3.13.2 any SavedModel (CVE-2026-1462).
So whatever the version, only Keras' own building blocks pass, and what this process registered
itself; and the safe mode is on besides.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from kgradcam.errors import UserError

_ENTRIES = frozenset({"metadata.json", "config.json", "model.weights.h5"})
_MOST_BYTES_OF_CONFIG = 2**26
_MODULES = re.compile(
    r"keras(\.src)?\.(layers|models|engine|ops|initializers|regularizers|constraints|dtype_policies"
    r"|quantizers|optimizers|losses|metrics|applications)(\.\w+)*"
)
# Layers that hold code, or open what files or addresses the configuration names.
_FOREIGN = frozenset(
    "Lambda __lambda__ TFSMLayer TorchModuleWrapper FlaxLayer JaxLayer StringLookup IntegerLookup "
    "TextVectorization".split()
)
_EXPORTED = {("keras", name) for name in ("DTypePolicy", "Model", "Sequential", "Variable")}


def read_model(path: Path, trusted: bool = False) -> Any:
    """Loads a `.keras` file, uncompiled.

    Args:
        path: The file.
        trusted: Lets the file run code of its own, as models with `Lambda` layers need.

    Returns:
        The model.

    Raises:
        UserError: The file is missing, is no Keras model, or would run code and is not trusted.
    """
    if not path.is_file():
        raise UserError(f"No model file {path}.")
    try:
        if not trusted:
            _check(path)
        return keras.models.load_model(path, compile=False, safe_mode=not trusted)
    except UserError:
        raise
    except Exception as error:  # h5py, zipfile and Keras raise many kinds on damaged input
        raise UserError(f"{path} cannot be loaded as a Keras model: {error}") from error


def _check(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        strange = sorted(set(file.namelist()) - _ENTRIES)
        if strange:
            raise ValueError(f"it holds {strange[0]!r}.")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
            raise ValueError("it is compressed, which Keras' own files are not.")
        config = file.getinfo("config.json")
        if config.file_size > _MOST_BYTES_OF_CONFIG:
            raise ValueError(f"its config.json has {config.file_size:,} bytes.")
        content = json.loads(file.read(config))
    for described in _objects(content):
        if (what := _foreign(described)) is not None:
            raise UserError(
                f"{path} holds {what}, which may run code of whoever made the file. If you trust "
                "them: --trust-model."
            )


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    """Every object that a configuration describes, however deep."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _foreign(described: dict[str, Any]) -> str | None:
    """What of an object is not Keras' own; `None` if all is."""
    name, module = str(described["class_name"]), str(described.get("module"))
    if name == "function":
        function = str(described.get("config"))
        known = callable(vars(keras.activations).get(function)) or _is_registered(function)
        return None if known else f"the function {module}.{function}"
    if _is_registered(str(described.get("registered_name"))):
        return None
    if name in _FOREIGN:
        return f"a {name.strip('_')} layer"
    if name.startswith("__") or (module, name) in _EXPORTED:
        return None  # the former are tensors, slices and the like
    if module == "None" or _MODULES.fullmatch(module):
        return None  # without a module Keras looks among its own
    return f"{module}.{name}"


def _is_registered(name: str) -> bool:
    return keras.saving.get_registered_object(name) is not None
