"""Registers the layers and functions of a user's modules, so that model files may contain them."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import keras

from kgradcam.errors import UserError

_KINDS = (
    *(keras.Operation, keras.constraints.Constraint, keras.initializers.Initializer),
    *(keras.regularizers.Regularizer, keras.losses.Loss, keras.metrics.Metric),
)


def import_modules(names: Sequence[str]) -> None:
    """Imports modules and registers the Keras classes and the functions that they define.

    A registered class may occur in a model file without `trusted`: that the user names its module
    is the consent. The names of Keras itself keep their meaning.

    Args:
        names: Modules as in an import statement, also of the working directory; or `.py` files.

    Raises:
        UserError: A module does not exist, or its import fails.
    """
    for name in names:
        try:
            module = _import_file(Path(name)) if name.endswith(".py") else _import_module(name)
        except Exception as error:  # a module may raise anything
            reason = str(error) or type(error).__name__
            raise UserError(
                f"--import {name} failed: {reason}. Expected a module, such as my_layers, or a "
                "file my_layers.py."
            ) from error
        registry = keras.saving.get_custom_objects()
        for key, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            is_class = inspect.isclass(value) and issubclass(value, _KINDS)
            of_keras = hasattr(keras.layers, key) or hasattr(keras.activations, key)
            if own and not of_keras and (is_class or inspect.isfunction(value)):
                registry.setdefault(key, value)


def _import_module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError("there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Keras looks up unregistered classes there
    spec.loader.exec_module(module)
    return module
