"""The options of a training. They are stored in the card of the model folder."""

import math
import types
from dataclasses import dataclass, field, fields
from typing import Any, get_origin, get_type_hints

from kgradcam.errors import UserError
from kgradcam.models.network import IMAGENET
from kgradcam.training.augmentation import Augmentation

_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, 3.4e38  # those of TensorFlow's int32 and float32
_RANGES: dict[str, tuple[float, float]] = {
    "cached_views": (0, _LARGEST_INT),
    "image_size": (1, _LARGEST_INT),
    "batch_size": (1, _LARGEST_INT),
    "head_epochs": (0, _LARGEST_INT),
    "epochs": (0, _LARGEST_INT),
    "learning_rate": (0, _LARGEST_FLOAT),
    "backbone_rate": (0, 1),
    "weight_decay": (0, _LARGEST_FLOAT),
    "patience": (0, _LARGEST_INT),
    "seed": (0, _LARGEST_INT),
    "augmentation.scale": (math.ulp(0), 1),
    "augmentation.colour": (0, 1),
    "augmentation.hide": (0, 1),
    "augmentation.hide_grid": (1, _LARGEST_INT),
}


@dataclass(frozen=True)
class TrainingConfiguration:
    """All options that determine a trained model.

    Attributes:
        dataset: A dataset of tensorflow-datasets, a folder or file, or `"demo"`; see
            `open_dataset`.
        split: The training split. Default: `"train"`, or `"all"` for a folder without that list.
        validation_split: The validation split, or the fraction of the training images to hold out,
            such as `"0.2"`. Default: the dataset's validation split, or 0.2 without one.
        test_split: A split that is evaluated once after training. Default: none.
        classes: The classes to recognize. Default: those with an object in the training split.
        model: The backbone: a network of `keras.applications`, `"efficientnet-lite0"`, a `.keras`
            file or a model folder.
        weights: `"imagenet"`, a weights file, or `None` for random weights. Layers that a `.npz`
            file lacks are trained from random weights.
        preprocess: Name of the model whose preprocessing is used, or `"none"`. Default: that of
            the backbone.
        last_layer: The layer whose feature maps are pooled. Default: the last one with height and
            width.
        dilation: Whether the last feature maps are doubled in height and width, see
            `network.build_network`.
        frozen_until: The last layer that is never trained. Default: none.
        cached_views: Number of variations of each image whose feature maps are computed once and
            kept on disk. 0 computes them in each epoch. Needs `frozen_until`.
        image_size: Height and width in pixels to which images are resized.
        batch_size: Images in a batch.
        head_epochs: Epochs of the first stage, which trains fresh layers only.
        epochs: Epochs of the second stage, which trains all layers that are not frozen. If no
            pretrained layer is left to train, there is one stage of both lengths.
        learning_rate: Initial learning rate of fresh layers. It falls to 0 as a cosine in each
            stage.
        backbone_rate: Factor on the learning rate of pretrained layers, in [0, 1], see
            `network.learning_rates`.
        weight_decay: Weight decay of AdamW.
        patience: Epochs without a better validation mAP after which the last stage ends. 0 trains
            all epochs.
        class_weights: Whether rare positive labels weigh more, see `optimization.balanced_weights`.
        augmentation: Random variations of the training images.
        mixed_precision: Whether to compute in float16 with float32 weights, for GPUs.
        seed: Random seed of weights, order and variations.
        clip: Whether boxes that leave their image are clipped, instead of skipping the image.
        layout: The layout of the dataset; see `open_dataset`.
        images: The folder of its images; see `open_dataset`.

    Raises:
        UserError: An option has another type or is out of range, or two options contradict each
            other.
    """

    dataset: str = "voc/2007"
    split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    classes: tuple[str, ...] = ()
    model: str = "resnet50"
    weights: str | None = IMAGENET
    preprocess: str | None = None
    last_layer: str | None = None
    dilation: bool = False
    frozen_until: str | None = None
    cached_views: int = 0
    image_size: int = 224
    batch_size: int = 32
    head_epochs: int = 5
    epochs: int = 15
    learning_rate: float = 1e-3
    backbone_rate: float = 0.1
    weight_decay: float = 1e-4
    patience: int = 5
    class_weights: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixed_precision: bool = False
    seed: int = 0
    clip: bool = False
    layout: str | None = None
    images: str | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check(self.augmentation, "augmentation.")
        if self.cached_views and not self.frozen_until:
            raise UserError(
                "cached_views needs frozen_until: only the output of frozen layers can be cached."
            )
        if self.head_epochs + self.epochs < 1:
            raise UserError("head_epochs and epochs are both 0. Expected at least one epoch.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingConfiguration":
        """Creates a configuration from the result of `dataclasses.asdict`, also through JSON."""
        options = {
            **values,
            "classes": tuple(values["classes"]),
            "augmentation": Augmentation(**values["augmentation"]),
        }
        if missing := {each.name for each in fields(cls)} - set(options):
            raise UserError(f"Expected the option {min(missing)!r} in a stored configuration.")
        return cls(**options)


def _check(options: Any, prefix: str = "") -> None:
    """Raises if an option has another type than declared, or is out of range."""
    for field_name, expected in get_type_hints(type(options)).items():
        name, value = prefix + field_name, getattr(options, field_name)
        if get_origin(expected) is tuple:
            fits = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
        else:
            # bool is a subclass of int, and an int is a valid float.
            accepted: Any = int | float if expected is float else expected
            fits = isinstance(value, accepted) and isinstance(value, bool) == (expected is bool)
        if not fits:
            described = expected if isinstance(expected, types.UnionType) else expected.__name__
            raise UserError(f"Expected {name} of type {described}. Received: {value!r}.")
        if name in _RANGES:
            low, high = _RANGES[name]
            if not low <= value <= high:  # also rejects NaN
                raise UserError(f"Expected {name} in [{low:g}, {high:g}]. Received: {value}.")
