"""From a heatmap to boxes with scores."""

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import DEFAULT_OPTIONS, DEFAULT_THRESHOLDS, BoxOptions
from kgradcam.boxes.overlap import box_iou
from kgradcam.boxes.single_threshold import single_threshold_boxes

__all__ = [
    "DEFAULT_OPTIONS",
    "DEFAULT_THRESHOLDS",
    "BoxOptions",
    "box_iou",
    "find_boxes",
    "normalize",
    "single_threshold_boxes",
]
