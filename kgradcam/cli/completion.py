"""Completes names on the command line. TensorFlow takes too long for a key press: none imports it.

`kgradcam --install-completion` installs completion into the shell.
"""

import importlib.util
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

METHODS = (
    *("gradcam", "guided-gradcam", "cam", "gradcam++", "xgradcam", "hirescam", "layercam"),
    *("counterfactual", "eigencam", "scorecam", "ablationcam"),
)
"""The names of all methods, for help and completion."""
_MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")
_MAX_CONFIG_BYTES = 2**26


def methods(incomplete: str) -> list[str]:
    """Returns the methods that start so."""
    return [name for name in METHODS if name.startswith(incomplete)]


def protocols(incomplete: str) -> list[str]:
    """Returns the protocols of AP that start so."""
    from kgradcam.metrics.protocol import PROTOCOLS

    return [name for name in PROTOCOLS if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Returns the networks, model files and folders that start so."""
    path = Path(incomplete).expanduser()
    folder = path if incomplete.endswith("/") else path.parent
    start = incomplete[: len(incomplete) - len(incomplete.rpartition("/")[2])]
    places = [
        start + each.name + "/" * each.is_dir()
        for each in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if each.suffix in _MODEL_SUFFIXES or (each.is_dir() and each.name[0] != ".")
    ]
    return [name for name in (*_networks(), *places) if name.startswith(incomplete)]


def methods_and_models(incomplete: str) -> list[str]:
    """Returns the methods and models that start so."""
    return methods(incomplete) + models(incomplete)


def layers(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the layers that start so, of a `.keras` file or model folder given before."""
    path = Path(context.params.get("model") or "")
    path = path / "model.keras" if path.is_dir() else path
    try:
        with zipfile.ZipFile(path) as file, file.open("config.json") as config:
            content = json.loads(config.read(_MAX_CONFIG_BYTES))
        return [name for name in _layer_paths(content["config"]) if name.startswith(incomplete)]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, RecursionError):
        return []  # the command itself reports a damaged file


def _networks() -> list[str]:
    """The networks that the installed Keras has, read from its source."""
    found = importlib.util.find_spec("keras")
    if found is None or not found.submodule_search_locations:
        return []
    source = Path(found.submodule_search_locations[0]) / "applications" / "__init__.py"
    text = source.read_text("utf-8") if source.is_file() else ""
    constructors = re.findall(r"\b([A-Z]\w*) as \1\b", text)
    return ["efficientnet-lite0", *sorted(name.lower() for name in constructors)]


def _layer_paths(config: dict[str, Any], start: str = "") -> Iterator[str]:
    for layer in config["layers"]:
        name = f"{start}{layer['config']['name']}"
        if layer["class_name"] != "InputLayer":
            yield name
        if "layers" in layer["config"]:
            yield from _layer_paths(layer["config"], f"{name}/")
