"""What will be trained on what: the configuration, the pictures, and the network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kgradcam.data.dataset import DEMO, Dataset, open_dataset
from kgradcam.data.examples import Example
from kgradcam.data.voc_folder import WHOLE_FOLDER, VocFolder
from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.layers import list_layers
from kgradcam.models.classifier import find_preprocessing
from kgradcam.models.model_card import read_card
from kgradcam.models.network import IMAGENET, load_network, require_model
from kgradcam.training.augmentation import Augmentation
from kgradcam.training.batches import Pictures, image_labels
from kgradcam.training.network import Architecture, Network, build_network, copy_network

HELD_OUT = "0.2"
"""Which share of the training images validates, where there is no split for it."""


@dataclass(frozen=True)
class Configuration:
    """What a model is made from; its card keeps it.

    Attributes:
        dataset: A VOC dataset of tensorflow-datasets, a folder in VOC layout, or `"demo"`.
        split: Its split to train on. Default: `"train"`, or `"all"` for a folder without one.
        validation_split: The split to validate on, or the share of the training images that is
            held out for it, as `"0.2"`. Default: the validation split, or 0.2 without one.
        test_split: A split that nothing is chosen on, measured once at the end. Default: none.
        classes: The classes to tell apart. Default: those with an object in the training split.
        model: The backbone: see `models.load_classifier`.
        weights: See there; a `.npz` file may lack layers, which are then trained from the start.
        preprocess: See there.
        architecture: What is built on the backbone.
        frozen_until: The last layer that is never trained. Default: none.
        cached_views: Keeps the features of so many variations of each picture on disk, and trains
            on them; 0 varies each picture anew in each epoch. Needs `frozen_until`.
        image_size: The side of the squares that pictures are resized to.
        batch_size: Images in a batch.
        head_epochs: Epochs in which only what has no weights yet is trained.
        epochs: Epochs after those, in which all that may be trained is; where that is the same,
            there is one stage of both.
        learning_rate: Of what has no weights yet; it falls as a cosine to 0 in each stage.
        backbone_rate: See `network.learning_rates`.
        weight_decay: Of AdamW.
        patience: Ends the last stage after so many epochs without a better validation mAP; 0 does
            not.
        class_weights: Whether positives count by how rare they are; see `balanced_weights`.
        augmentation: How pictures are varied.
        mixed_precision: Computes in float16 and keeps weights in float32, for GPUs.
        seed: For weights, order and variations.
    """

    dataset: str = "voc/2007"
    split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    classes: tuple[str, ...] = ()
    model: str = "resnet50"
    weights: str | None = IMAGENET
    preprocess: str | None = None
    architecture: Architecture = field(default_factory=Architecture)
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

    def __post_init__(self) -> None:
        if self.cached_views and not self.frozen_until:
            raise UserError(
                "cached_views needs frozen_until: only what is never trained can be cached."
            )
        if self.head_epochs + self.epochs < 1:
            raise UserError("head_epochs and epochs are both 0: there is nothing to train.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Configuration":
        """Reads what `dataclasses.asdict` gave, from JSON or otherwise."""
        nested = {"architecture": Architecture, "augmentation": Augmentation}
        options = {
            name: nested[name](**_tuples(value)) if name in nested else value
            for name, value in _tuples(values).items()
        }
        return cls(**options)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


@dataclass(frozen=True)
class Data:
    """The pictures of a training.

    Attributes:
        class_names: What is told apart.
        training: Pictures to train on, varied.
        validation: Pictures to validate on, only resized.
        test: Pictures to measure at the end, likewise, or `None`.
    """

    class_names: tuple[str, ...]
    training: Pictures
    validation: Pictures
    test: Pictures | None

    @property
    def parts(self) -> dict[str, Pictures]:
        """What there is, by name."""
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: pictures for name, pictures in parts.items() if pictures is not None}

    def describe(self) -> dict[str, Any]:
        """Returns the numbers of images and, for each class, of positives, of each part."""
        return {
            name: {
                "split": pictures.dataset.split,
                "images": len(pictures.examples),
                "positives": dict(
                    zip(self.class_names, (pictures.labels == 1).sum(axis=0).tolist(), strict=True)
                ),
            }
            for name, pictures in self.parts.items()
        }


@dataclass(frozen=True)
class Plan:
    """What will be trained on what, before anything is.

    Attributes:
        configuration: What was asked for.
        data: The pictures.
        network: The network.
        missing: Layers that the weights lack.
        stages: For each stage its name, its epochs, and whether pretrained layers learn in it.
    """

    configuration: Configuration
    data: Data
    network: Network
    missing: tuple[str, ...]
    stages: tuple[tuple[str, int, bool], ...]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.data.training.examples) // self.data.training.batch_size

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns the plan as a header and lines, to be read before hours are spent."""
        network, lines = self.network, []
        for name, part in self.data.describe().items():
            positives = ", ".join(f"{each} {count}" for each, count in part["positives"].items())
            lines.append([name, f"{part['images']} images of {part['split']}: {positives}"])
        lines.append(["maps", _extent(network.whole, self.configuration.image_size)])
        lines.append(["from the start", f"{len(network.fresh)} layers"])
        if self.missing:
            lines.append(["weights lack", ", ".join(self.missing)])
        if network.pretrained:
            first, *_, last = (*network.pretrained, network.pretrained[-1])
            lines.append(["pretrained", f"{len(network.pretrained)} layers, {first} to {last}"])
        if self.configuration.frozen_until:
            lines.append(["frozen", f"up to {self.configuration.frozen_until}"])
        for name, epochs, _ in self.stages:
            lines.append([name, f"{epochs} epochs of {self.steps} batches"])
        return ["", ""], lines


def _extent(network: keras.Model, size: int) -> str:
    """The layer that will be explained, and its size for pictures of a size."""
    shape = list_layers(copy_network(network, side=size))[1].shape
    return f"{list_layers(network)[1].path}: {' x '.join(map(str, shape))}"


def plan_training(configuration: Configuration, data_dir: Path | None = None) -> Plan:
    """Opens the data and builds the network.

    Args:
        configuration: What to train.
        data_dir: Where tensorflow-datasets keeps its data.

    Raises:
        UserError: Something in the configuration does not exist or does not fit.
    """
    require_model(configuration.model)
    keras.utils.set_random_seed(configuration.seed)
    data = _open_data(configuration, data_dir)
    backbone, missing = load_network(configuration.model, configuration.weights)
    network = build_network(
        backbone,
        len(data.class_names),
        configuration.architecture,
        missing,
        configuration.frozen_until,
        bool(configuration.cached_views),
        "mixed_float16" if configuration.mixed_precision else None,
    )
    built = {layer.name for layer in network.whole.layers}
    head_epochs, epochs = configuration.head_epochs, configuration.epochs
    stages = [("head", head_epochs, False), ("fine-tune", epochs, True)]
    if not network.pretrained:  # both would train the same layers
        stages = [("head", head_epochs + epochs, False)]
    return Plan(
        configuration=configuration,
        data=data,
        network=network,
        missing=tuple(name for name in missing if name in built),
        stages=tuple(stage for stage in stages if stage[1]),
    )


def preprocessing_name(configuration: Configuration) -> str:
    """Returns whose preprocessing the network takes."""
    if configuration.preprocess:
        return configuration.preprocess
    if Path(configuration.model).is_dir():
        return str(read_card(Path(configuration.model))["preprocess"])
    return "none" if configuration.model.endswith(".keras") else configuration.model


def _open_data(configuration: Configuration, data_dir: Path | None) -> Data:
    dataset, examples, validation, held_out = _open_splits(configuration, data_dir)
    present = {name for each in examples for name in each.objects.names}
    for name in configuration.classes:
        if name not in present:
            raise UserError(
                f"class {name!r} does not occur in split {dataset.split!r} of {dataset.name}."
                f"{did_you_mean(name, present)} It has: {', '.join(sorted(present)) or 'none'}."
            )
    names = configuration.classes or tuple(n for n in dataset.class_names if n in present)
    labels = image_labels(examples, names)
    for name, positives in zip(names, (labels == 1).sum(axis=0), strict=True):
        if not positives and configuration.classes:
            raise UserError(
                f"class {name!r} has only difficult objects: there is nothing to learn."
            )
    kept = [place for place, count in enumerate((labels == 1).sum(axis=0)) if count]
    if not kept:
        raise UserError(f"No image of split {dataset.split!r} of {dataset.name} has an object.")
    names = tuple(names[place] for place in kept)
    common: dict[str, Any] = {
        "preprocess": find_preprocessing(preprocessing_name(configuration)),
        "size": configuration.image_size,
        "batch_size": min(configuration.batch_size, len(examples)),
    }

    def to_measure(dataset: Dataset, examples: list[Example]) -> Pictures:
        labels = image_labels(examples, names)
        if not (labels == 1).any():
            raise UserError(
                f"None of the {len(examples)} images to measure on, of split {dataset.split!r}, "
                f"holds one of {', '.join(names)}."
            )
        return Pictures(dataset, examples, labels, **common)

    test = None
    if configuration.test_split:
        split = open_dataset(configuration.dataset, configuration.test_split, data_dir)
        _require_apart(examples, dataset.split, split.examples, split.split)
        test = to_measure(split, split.examples)
    return Data(
        class_names=names,
        training=Pictures(
            dataset,
            examples,
            image_labels(examples, names),
            augmentation=configuration.augmentation,
            seed=configuration.seed,
            **common,
        ),
        validation=to_measure(validation, held_out),
        test=test,
    )


def _require_apart(
    training: list[Example], split: str, others: list[Example], other_split: str
) -> None:
    both = {each.file_name for each in training} & {each.file_name for each in others}
    if both:
        raise UserError(
            f"{len(both)} images are in both {split!r} and {other_split!r}, as {min(both)}: "
            "measure on others, or hold out a share, as 0.2."
        )


def _open_splits(
    configuration: Configuration, data_dir: Path | None
) -> tuple[Dataset, list[Example], Dataset, list[Example]]:
    """Returns the training set and its images, the validation set and its images."""
    split, wanted = _choose_splits(configuration)
    dataset = open_dataset(configuration.dataset, split, data_dir)
    try:
        share = float(wanted)
    except ValueError:
        validation = open_dataset(configuration.dataset, wanted, data_dir)
        _require_apart(dataset.examples, split, validation.examples, validation.split)
        return dataset, dataset.examples, validation, validation.examples
    count = round(share * len(dataset.examples))
    if not 0 < count < len(dataset.examples):
        raise UserError(
            f"validation_split={wanted} leaves {count} of {len(dataset.examples)} images to "
            "validate on. Expected: a split, or a share between 0 and 1 that leaves some for both."
        )
    order = np.random.default_rng(configuration.seed).permutation(len(dataset.examples))
    held_out = set(order[:count].tolist())
    parts: tuple[list[Example], list[Example]] = ([], [])
    for place, example in enumerate(dataset.examples):
        parts[place in held_out].append(example)
    return dataset, parts[0], dataset, parts[1]


def _choose_splits(configuration: Configuration) -> tuple[str, str]:
    """The split to train on, and the one, or the share of it, to validate on."""
    split, validation = "train", "validation"
    if configuration.dataset == DEMO:
        validation = HELD_OUT
    elif Path(configuration.dataset).is_dir():
        lists = VocFolder(Path(configuration.dataset)).split_files
        split = "train" if "train" in lists else WHOLE_FOLDER
        if configuration.split == WHOLE_FOLDER or not {"val", "validation"} & set(lists):
            validation = HELD_OUT
    return configuration.split or split, configuration.validation_split or validation
