"""An explainer as a file that other programs run, such as a model server."""

from kgradcam.serving.export import export_model

__all__ = ["export_model"]
