"""Trains classifiers of a dataset's own classes, whose heatmaps then localize these classes."""

from kgradcam.training.augmentation import Augmentation
from kgradcam.training.configuration import TrainingConfiguration
from kgradcam.training.folder import read_plan
from kgradcam.training.heatmap_callback import HeatmapCallback
from kgradcam.training.plan import Plan, plan_training
from kgradcam.training.train import train

__all__ = [
    "Augmentation",
    "HeatmapCallback",
    "Plan",
    "TrainingConfiguration",
    "plan_training",
    "read_plan",
    "train",
]
