"""Loads `.keras` files after a check of their contents, because such a file may hold code.

A `.keras` file is a zip of weights and of `config.json`, which names the class of each layer. A
layer may be Python code, and the safe mode of Keras does not catch all of it. Before Keras 3.9 a
configuration could call any function (CVE-2025-1550), before 3.11 functions of Keras that write
files or disable the safe mode (CVE-2025-8747, CVE-2025-9906), before 3.13.2 any SavedModel
(CVE-2026-1462). The check here does not depend on the version: it admits objects of Keras itself
and objects that this process registered. The safe mode stays on as a second barrier.
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
_MAX_CONFIG_BYTES = 2**26
_ALLOWED_MODULES = re.compile(
    r"keras(\.src)?\.(layers|models|engine|ops|initializers|regularizers|constraints|dtype_policies"
    r"|quantizers|optimizers|losses|metrics|applications)(\.\w+)*"
)
_ALLOWED_TOP_LEVEL = frozenset({"DTypePolicy", "Model", "Sequential", "Variable"})
# Layers of Keras that contain code, or open files and addresses that the configuration names.
_REFUSED_LAYERS = frozenset(
    "Lambda __lambda__ TFSMLayer TorchModuleWrapper FlaxLayer JaxLayer StringLookup IntegerLookup "
    "TextVectorization".split()
)


def read_model(path: Path, trusted: bool = False) -> Any:
    """Loads a `.keras` file, uncompiled.

    Args:
        path: The file.
        trusted: Skips the check and the safe mode, which models with `Lambda` layers need.

    Returns:
        The Keras model.

    Raises:
        UserError: The file is missing or not a Keras model, or it may run code and is not trusted.
    """
    if not path.is_file():
        raise UserError(f"No model file {path}.")
    try:
        if not trusted:
            _check(path)
        return keras.models.load_model(path, compile=False, safe_mode=not trusted)
    except UserError:
        raise
    except Exception as error:  # h5py, zipfile and Keras raise errors of many types
        raise UserError(f"{path} cannot be loaded as a Keras model: {error}") from error


def _check(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        unknown = sorted(set(file.namelist()) - _ENTRIES)
        if unknown:
            raise ValueError(f"it holds {unknown[0]!r}.")
        # Keras stores its entries uncompressed, so compression can only hide a zip bomb.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
            raise ValueError("it is compressed, unlike files that Keras writes.")
        config = file.getinfo("config.json")
        if config.file_size > _MAX_CONFIG_BYTES:
            raise ValueError(f"its config.json has {config.file_size:,} bytes.")
        content = json.loads(file.read(config))
    for description in _object_descriptions(content):
        if (refused := _refusal(description)) is not None:
            raise UserError(
                f"{path} holds {refused}, which may run code. If you trust its author, give "
                "--trust-model."
            )


def _object_descriptions(content: Any) -> Iterator[dict[str, Any]]:
    """Yields each dict with a class name, at any depth."""
    # A list instead of recursion: the depth of the file is not limited by Python's stack.
    remaining = [content]
    while remaining:
        part = remaining.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                yield part
            remaining += part.values()
        elif isinstance(part, list):
            remaining += part


def _refusal(description: dict[str, Any]) -> str | None:
    """Returns what the described object is if it is not admitted, else `None`."""
    name, module = str(description["class_name"]), str(description.get("module"))
    if name == "function":
        # Keras looks up functions by `config`; `registered_name` has no effect for them.
        function = str(description.get("config"))
        known = callable(vars(keras.activations).get(function)) or _is_registered(function)
        return None if known else f"the function {module}.{function}"
    if _is_registered(str(description.get("registered_name"))):
        return None
    if name in _REFUSED_LAYERS:
        return f"a {name.strip('_')} layer"
    # The other dunder names are tensors, slices and the like.
    if name.startswith("__") or (module == "keras" and name in _ALLOWED_TOP_LEVEL):
        return None
    # Without a module, Keras searches its own classes only.
    if module == "None" or _ALLOWED_MODULES.fullmatch(module):
        return None
    return f"{module}.{name}"


def _is_registered(name: str) -> bool:
    return keras.saving.get_registered_object(name) is not None
