"""Measures of boxes and heatmaps against annotations, and of heatmaps against their model.

Only the measures of `faithfulness` need TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
