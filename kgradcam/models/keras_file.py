"""Loads `.keras` and `.h5` files after a check of their contents, since they may hold code.

A `.keras` file is a zip of weights and of `config.json`, which names the class of each layer. An
HDF5 file of Keras 2 or 3 has the same configuration in an attribute. A
layer may be Python code, and the safe mode of Keras does not catch all of it. Before Keras 3.9 a
configuration could call any function (CVE-2025-1550), before 3.11 functions of Keras that write
files or disable the safe mode (CVE-2025-8747, CVE-2025-9906), before 3.13.2 any SavedModel
(CVE-2026-1462). The check here does not depend on the version. The safe mode stays on as a second
barrier.
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras

from kgradcam.errors import UserError
from kgradcam.models.keras_objects import find_refused
from kgradcam.models.weights_file import check_hdf5

HDF5_SUFFIXES = (".h5", ".hdf5")
_OF_HDF5 = " Keras reads no operations, such as x + y, from .h5 files: save a .keras file."
_LONGEST_REASON = 300
_WEIGHTS = "model.weights.h5"
_MAX_BYTES = {"metadata.json": 2**16, "config.json": 2**26, _WEIGHTS: 2**33}


def is_model_file(name: str) -> bool:
    """Returns whether a path ends as files of Keras models do: in `.keras`, `.h5` or `.hdf5`."""
    return name.endswith((".keras", *HDF5_SUFFIXES))


def read_model(path: Path, trusted: bool = False) -> Any:
    """Loads a `.keras` or `.h5` file, uncompiled.

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
        advice = _OF_HDF5 if path.suffix in HDF5_SUFFIXES else ""
        raise UserError(
            f"{path} cannot be loaded as a Keras model: {_reason(error)}{advice}"
        ) from error


def _check(path: Path) -> None:
    legacy = path.suffix in HDF5_SUFFIXES
    if legacy:
        check_hdf5(path)
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
        if text is None:
            raise ValueError(
                "it holds weights without a model. Give the network with --model, and the file "
                "with --weights."
            )
    else:
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json")
    refused = find_refused(json.loads(text), legacy)
    if refused is not None:
        raise UserError(
            f"{path} holds {refused}, which may run code. If you trust its author, give "
            "--trust-model; for a layer of your own give --import MODULE, which defines it."
            f"{_OF_HDF5 if legacy else ''}"
        )


def _reason(error: Exception) -> str:
    """The reason of a failure in one line; Keras appends whole configurations."""
    text = str(error)
    missing = re.search(r"(?:Could not locate (?:class|function)|Unknown [\w ]+:) '([^']+)'", text)
    if missing:
        return f"{missing[1]!r} is not of Keras. Give the module that defines it: --import MODULE."
    line = next(iter(text.strip().splitlines()), type(error).__name__)
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} ..."


def check_archive(path: Path) -> int:
    """Checks the entries of a `.keras` file and its weights.

    Args:
        path: The file.

    Returns:
        The number of arrays of its weights.

    Raises:
        ValueError: It holds other entries than Keras writes, or incomplete weights.
        KeyError: It holds no weights.
        OSError: The weights are not an HDF5 file.
        zipfile.BadZipFile: It is not a zip file.
    """
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        # Two entries of one name: the check and Keras could read different ones.
        if len(set(names)) < len(names):
            raise ValueError("it holds two entries of one name.")
        for entry in file.infolist():
            # Keras stores its entries uncompressed, so compression can only hide a zip bomb.
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed, unlike files that Keras writes.")
            if entry.filename not in _MAX_BYTES:
                raise ValueError(f"it holds {entry.filename!r}, unlike files that Keras writes.")
            if entry.file_size > _MAX_BYTES[entry.filename]:
                raise ValueError(f"its {entry.filename} has {entry.file_size:,} bytes.")
        return check_hdf5(io.BytesIO(file.read(_WEIGHTS)))
