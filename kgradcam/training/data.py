"""The images of a training: opens the splits and derives the classes and the labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kgradcam.data.dataset import Dataset
from kgradcam.data.examples import Example, files_digest
from kgradcam.data.names import DEMO
from kgradcam.data.sources import open_dataset, split_names
from kgradcam.data.split_names import WHOLE_FOLDER
from kgradcam.errors import UserError, did_you_mean
from kgradcam.models.keras_file import is_model_file
from kgradcam.models.model_card import read_card
from kgradcam.models.preprocessing import find_preprocessing
from kgradcam.training.batches import LabelledImages, image_labels
from kgradcam.training.configuration import TrainingConfiguration

HELD_OUT = "0.2"
"""Fraction of the training images to validate on if the dataset has no validation split."""
FEW = 5
"""Fewer training images of a class are warned of."""


class FixedPictures(NamedTuple):
    """Validation images whose heatmaps are drawn again and again during a training.

    Attributes:
        images: float32 `[images, size, size, 3]`, RGB in [0, 255].
        classes: The index of a class that each image shows.
        boxes: Its objects of that class, `[objects, 4]`, xyxy in pixels of the resized image.
    """

    images: npt.NDArray[np.float32]
    classes: list[int]
    boxes: list[npt.NDArray[np.float64]]


@dataclass(frozen=True)
class TrainingData:
    """The images of a training.

    Attributes:
        class_names: The classes, in the order of the outputs.
        training: Images to train on, with random variations.
        validation: Images to choose the best epoch on, only resized.
        test: Images to evaluate at the end, only resized, or `None`.
    """

    class_names: tuple[str, ...]
    training: LabelledImages
    validation: LabelledImages
    test: LabelledImages | None

    @property
    def parts(self) -> dict[str, LabelledImages]:
        """The sets of images by name, without a missing test set."""
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: images for name, images in parts.items() if images is not None}

    @property
    def cautions(self) -> list[str]:
        """A sentence for each reason why the labels teach little."""
        labels, found = self.training.labels, []
        counts = dict(zip(self.class_names, (labels == 1).sum(axis=0).tolist(), strict=True))
        shown_by_all = (labels != 0).all(axis=0)
        everywhere = [name for name, each in zip(counts, shown_by_all, strict=True) if each]
        if everywhere:
            found.append(
                f"Every training image shows {', '.join(everywhere)}, so nothing sets it apart. "
                "Add images without it."
            )
        if few := [f"{name} {count}" for name, count in counts.items() if count < FEW]:
            found.append(f"Few training images of {', '.join(few)}. {FEW} of each is little.")
        return found

    def describe(self) -> dict[str, Any]:
        """Returns the split, the number of images and the positives of each class, by part."""
        return {
            name: {
                "split": images.dataset.split,
                "images": len(images.examples),
                "positives": dict(
                    zip(self.class_names, (images.labels == 1).sum(axis=0).tolist(), strict=True)
                ),
            }
            for name, images in self.parts.items()
        }

    def fixed_pictures(self, limit: int = 16) -> FixedPictures:
        """Reads the first validation images of each class, in their order in the split."""
        part, seen = self.validation, [0] * len(self.class_names)
        turns = []
        for row, labels in enumerate(part.labels == 1):
            if labels.any():
                column = int(labels.argmax())
                turns.append((seen[column], column, row))
                seen[column] += 1
        # Of all classes in turn; batches have the order of the split.
        chosen = sorted((row, column) for _, column, row in sorted(turns)[:limit])
        rows, columns = [row for row, _ in chosen], [column for _, column in chosen]
        examples = [part.examples[row] for row in rows]
        pixels = replace(
            part,
            examples=examples,
            labels=part.labels[rows],
            preprocess=find_preprocessing("none"),
        )
        boxes = []
        for example, column in zip(examples, columns, strict=True):
            names = np.array(example.objects.names, dtype=object)
            scale = part.size / np.array([example.width, example.height] * 2)
            boxes.append(example.objects.boxes[names == self.class_names[column]] * scale)
        return FixedPictures(
            np.concatenate([images for images, _ in pixels.batches().as_numpy_iterator()]),
            columns,
            boxes,
        )

    def digests(self) -> dict[str, Any]:
        """Returns the classes and digests of images and labels, which a resumed training compares.

        A digest of images covers the bytes of files. Prepared tensorflow-datasets are not read.
        """
        return {
            "classes": list(self.class_names),
            **{
                name: {
                    "images": len(images.examples),
                    "annotations": images.dataset.digest(),
                    "files": files_digest(images.examples),
                }
                for name, images in self.parts.items()
            },
        }


def open_data(configuration: TrainingConfiguration, data_dir: Path | None) -> TrainingData:
    """Opens the splits of a training.

    Args:
        configuration: The options.
        data_dir: Folder of tensorflow-datasets.

    Returns:
        The images.

    Raises:
        UserError: A split or class does not exist, two splits overlap, or there is nothing to
            learn or to validate on.
    """
    dataset, examples, validation, held_out = _open_splits(configuration, data_dir)
    names = _choose_classes(configuration.classes, dataset, examples)
    common: dict[str, Any] = {
        "preprocess": find_preprocessing(preprocessing_name(configuration)),
        "size": configuration.image_size,
        "batch_size": min(configuration.batch_size, len(examples)),
    }

    def to_evaluate(dataset: Dataset, examples: Sequence[Example]) -> LabelledImages:
        labels = image_labels(examples, names)
        if not (labels == 1).any():
            raise UserError(
                f"None of the {len(examples)} images of split {dataset.split!r} to evaluate on "
                f"shows any of {', '.join(names)}."
            )
        return LabelledImages(dataset, examples, labels, **common)

    test = None
    if configuration.test_split:
        split = _open(configuration, configuration.test_split, data_dir)
        _require_disjoint(examples, dataset.split, split)
        test = to_evaluate(split, split.examples)
    training = LabelledImages(
        dataset,
        examples,
        image_labels(examples, names),
        augmentation=configuration.augmentation,
        seed=configuration.seed,
        **common,
    )
    return TrainingData(names, training, to_evaluate(validation, held_out), test)


def preprocessing_name(configuration: TrainingConfiguration) -> str:
    """Returns the name of the model whose preprocessing the network uses, or `"none"`."""
    if configuration.preprocess:
        return configuration.preprocess
    if Path(configuration.model).is_dir():
        return str(read_card(Path(configuration.model))["preprocess"])
    return "none" if is_model_file(configuration.model) else configuration.model


def _choose_classes(
    wanted: Sequence[str], dataset: Dataset, examples: Sequence[Example]
) -> tuple[str, ...]:
    """Returns the classes that have a positive label."""
    present = set().union(*(each.objects.classes for each in examples))
    for name in wanted:
        if name not in present:
            raise UserError(
                f"class {name!r} does not occur in split {dataset.split!r} of {dataset.name}."
                f"{did_you_mean(name, present)} It has: {', '.join(sorted(present)) or 'none'}."
            )
    names = wanted or [name for name in dataset.class_names if name in present]
    positives = (image_labels(examples, names) == 1).sum(axis=0)
    kept = tuple(name for name, count in zip(names, positives, strict=True) if count)
    for name in wanted:
        if name not in kept:
            raise UserError(f"class {name!r} has difficult objects only, so it cannot be learned.")
    if not kept:
        raise UserError(f"No image of split {dataset.split!r} of {dataset.name} has an object.")
    return kept


def _open_splits(
    configuration: TrainingConfiguration, data_dir: Path | None
) -> tuple[Dataset, list[Example], Dataset, list[Example]]:
    """Returns the training set and its images, then the validation set and its images."""
    split, validation_split = _choose_splits(configuration)
    dataset = _open(configuration, split, data_dir)
    try:
        share = float(validation_split)
    except ValueError:
        validation = _open(configuration, validation_split, data_dir)
        _require_disjoint(dataset.examples, split, validation)
        return dataset, dataset.examples, validation, validation.examples
    total = len(dataset.examples)
    count = round(share * total) if 0 < share < 1 else 0
    if not 0 < count < total:
        raise UserError(
            f"validation_split={validation_split} holds out {count} of {total} images. Expected: "
            "a split, or a fraction between 0 and 1 that leaves images for both parts."
        )
    order = np.random.default_rng(configuration.seed).permutation(total)
    held_out = set(order[:count].tolist())
    parts: tuple[list[Example], list[Example]] = ([], [])
    for place, example in enumerate(dataset.examples):
        parts[place in held_out].append(example)
    return dataset, parts[0], dataset, parts[1]


def _open(configuration: TrainingConfiguration, split: str, data_dir: Path | None) -> Dataset:
    return open_dataset(
        configuration.dataset,
        split,
        data_dir,
        clip=configuration.clip,
        layout=configuration.layout,
        images=Path(configuration.images) if configuration.images else None,
    )


def _choose_splits(configuration: TrainingConfiguration) -> tuple[str, str]:
    """Returns the training split, then the validation split or the fraction to hold out."""
    split, validation = "train", "validation"
    names = split_names(configuration.dataset, None, configuration.layout)
    if configuration.dataset == DEMO:
        validation = HELD_OUT
    elif names is not None:
        split = _named(names, "train") or WHOLE_FOLDER
        if not {"val", "validation"} & set(names):
            validation = _named(names, "val") or HELD_OUT
        if configuration.split == WHOLE_FOLDER:
            validation = HELD_OUT
    return configuration.split or split, configuration.validation_split or validation


def _named(splits: Sequence[str], start: str) -> str | None:
    """The split of that name, else the first that starts so, as `train2017`."""
    found = [name for name in splits if name.startswith(start)]
    return start if start in found else next(iter(found), None)


def _require_disjoint(training: Sequence[Example], split: str, other: Dataset) -> None:
    both = {each.file_name for each in training} & {each.file_name for each in other.examples}
    if both:
        raise UserError(
            f"{len(both)} images are in both {split!r} and {other.split!r}, such as {min(both)}. "
            "Expected disjoint splits, or a fraction to hold out, such as 0.2."
        )
