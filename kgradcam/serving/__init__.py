"""An explainer as a file that other programs run, such as a model server."""

from kgradcam.serving.converted import export_converted
from kgradcam.serving.export import export_model

__all__ = ["export_converted", "export_model"]
