"""Digests of a model, so that an interrupted run resumes with the same one only."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np


def architecture_digest(model: keras.Model) -> str:
    """Returns 16 hexadecimal digits that depend on the layers of a model and their connections.

    Args:
        model: The model. Of a subclassed model without configuration only the names of its class
            and of its layers' classes count, since Python code has no digest.
    """
    try:
        content = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError):
        content = [_class_name(each) for each in (model, *model.layers)]
    # Keras numbers unnamed operations through a process, so their names differ in the next one.
    operations = getattr(model, "operations", model.layers)
    names = {each.name: f"operation {i}" for i, each in enumerate(operations)}
    names[model.name] = "model"
    return hashlib.sha256(json.dumps(_rename(content, names)).encode()).hexdigest()[:16]


def weights_digest(variables: Iterable[Any]) -> str:
    """Returns 16 hexadecimal digits of a SHA-256 over the values of variables, in their order."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.asarray(variable).tobytes())
    return digest.hexdigest()[:16]


def _class_name(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _rename(value: Any, names: dict[str, str]) -> Any:
    """Replaces names in a value of JSON; the keys of dictionaries stay."""
    if isinstance(value, dict):
        return {key: _rename(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_rename(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value
