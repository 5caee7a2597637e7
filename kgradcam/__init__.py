"""Grad-CAM for every Keras 3 model: explain, localize, measure."""

__version__ = "0.1.0"
