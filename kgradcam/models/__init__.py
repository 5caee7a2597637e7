"""Networks with their weights, preprocessing and class names."""

from kgradcam.models.class_targets import dataset_targets, parse_target
from kgradcam.models.classifier import Classifier, load_classifier
from kgradcam.models.efficientnet_lite import EfficientNetLite0
from kgradcam.models.model_card import read_card
from kgradcam.models.network import load_network, model_names
from kgradcam.models.preprocessing import find_preprocessing

__all__ = [
    "Classifier",
    "EfficientNetLite0",
    "dataset_targets",
    "find_preprocessing",
    "load_classifier",
    "load_network",
    "model_names",
    "parse_target",
    "read_card",
]
