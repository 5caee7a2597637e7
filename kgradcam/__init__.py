"""Grad-CAM for every Keras 3 model: explain, localize, measure."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgradcam.boxes import BoxOptions, find_boxes, normalize
    from kgradcam.errors import UserError
    from kgradcam.gradcam import Explanation, GradCAM
    from kgradcam.importance import neuron_importance
    from kgradcam.layers import list_layers
    from kgradcam.pictures import overlay

__version__ = "0.1.0"

__all__ = [
    "BoxOptions",
    "Explanation",
    "GradCAM",
    "UserError",
    "find_boxes",
    "list_layers",
    "neuron_importance",
    "normalize",
    "overlay",
]

_HOMES = {
    "BoxOptions": "boxes",
    "Explanation": "gradcam",
    "GradCAM": "gradcam",
    "UserError": "errors",
    "find_boxes": "boxes",
    "list_layers": "layers",
    "neuron_importance": "importance",
    "normalize": "boxes",
    "overlay": "pictures",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: TensorFlow alone takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kgradcam' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kgradcam.{_HOMES[name]}"), name)
