"""Grad-CAM for every Keras 3 model: explain, localize, measure.

The public names are listed once, in `__init__.pyi`. Each is imported when it is first used, since
TensorFlow alone takes seconds.
"""

import lazy_loader

from kgradcam._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
