"""The options of a training. They are stored in the card of the model folder."""

import math
from dataclasses import dataclass, field
from typing import Any

from kgradcam.errors import UserError
from kgradcam.models.network import IMAGENET
from kgradcam.training.augmentation import Augmentation

_RANGES: dict[str, tuple[float, float]] = {
    "cached_views": (0, math.inf),
    "image_size": (1, math.inf),
    "batch_size": (1, math.inf),
    "head_epochs": (0, math.inf),
    "epochs": (0, math.inf),
    "learning_rate": (0, math.inf),
    "backbone_rate": (0, 1),
    "weight_decay": (0, math.inf),
    "patience": (0, math.inf),
    "seed": (0, math.inf),
}


@dataclass(frozen=True)
class TrainingConfiguration:
    """All options that determine a trained model.

    Attributes:
        dataset: A VOC dataset of tensorflow-datasets, a folder in VOC layout, or `"demo"`.
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

    Raises:
        UserError: A number is out of range, or two options contradict each other.
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

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                upper = f" and at most {high:g}" if high < math.inf else ""
                raise UserError(f"Expected {name} of at least {low:g}{upper}. Received: {value}.")
        if self.cached_views and not self.frozen_until:
            raise UserError(
                "cached_views needs frozen_until: only the output of frozen layers can be cached."
            )
        if self.head_epochs + self.epochs < 1:
            raise UserError("head_epochs and epochs are both 0. Expected at least one epoch.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingConfiguration":
        """Creates a configuration from the result of `dataclasses.asdict`, also through JSON."""
        options = {**values, "classes": tuple(values["classes"])}
        return cls(**{**options, "augmentation": Augmentation(**values["augmentation"])})
