"""Class activation maps: Grad-CAM and its relatives, for every Keras 3 model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
