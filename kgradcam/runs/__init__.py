"""Runs: the heatmaps and boxes of a dataset in a folder of documented files.

Only `detect` needs TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
