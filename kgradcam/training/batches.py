"""Batches to train on: augmented pictures, or the features that a frozen trunk makes of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.data.dataset import Dataset, untuned
from kgradcam.data.examples import Example
from kgradcam.metrics.classification import UNKNOWN
from kgradcam.progress import Advance, ignore
from kgradcam.training.augmentation import Augmentation, augment, cut_and_mix

MAPS_FILE, LABELS_FILE = "maps.npy", "labels.npy"


def image_labels(
    examples: Sequence[Example], class_names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Returns which classes each image holds.

    Args:
        examples: The images.
        class_names: The classes.

    Returns:
        float32 `[images, classes]`: 1 with an object that is not difficult, `UNKNOWN` with
        difficult ones only, else 0.
    """
    labels = np.zeros((len(examples), len(class_names)), np.float32)
    places = {name: place for place, name in enumerate(class_names)}
    for row, example in zip(labels, examples, strict=True):
        for name, difficult in zip(example.objects.names, example.objects.difficult, strict=True):
            if name in places:
                place = places[name]
                row[place] = 1.0 if not difficult or row[place] == 1.0 else UNKNOWN
    return labels


@dataclass(frozen=True)
class Pictures:
    """Pictures and labels of some images of a dataset, preprocessed, in batches.

    Attributes:
        dataset: The dataset.
        examples: The images.
        labels: float32 `[images, classes]`, see `image_labels`.
        preprocess: Maps float32 RGB in [0, 255] to what the network takes.
        size: The side of the pictures.
        batch_size: Images in a batch.
        augmentation: How they are varied; `None` only resizes them, and keeps their order.
        seed: For the order and the variations.
    """

    dataset: Dataset
    examples: Sequence[Example]
    labels: npt.NDArray[np.float32]
    preprocess: Callable[[Any], Any]
    size: int
    batch_size: int
    augmentation: Augmentation | None = None
    seed: int = 0

    def batches(self, view: int = 0, whole_batches: bool = False) -> Any:
        """Returns a `tf.data.Dataset` of `(images, labels)` that shows each image once.

        Args:
            view: Which order and which variations: a number, as that of the epoch.
            whole_batches: Leaves out what is left after the last whole batch.
        """
        seed = int(np.random.default_rng([self.seed, view]).integers(2**31))
        table = np.full((max(each.index for each in self.examples) + 1, self.labels.shape[1]), 0.0)
        table[[example.index for example in self.examples]] = self.labels
        labels = tf.constant(table, tf.float32)
        decode = self.dataset.decoder(self.examples, None if self.augmentation else self.size)

        def prepare(index: Any, encoded: Any) -> tuple[Any, Any]:
            index, image, decoded = decode(index, encoded)
            # What does not decode teaches nothing.
            label = tf.where(decoded, labels[index], UNKNOWN)
            if self.augmentation:
                image = augment(image, self.size, [seed, index], self.augmentation)
            return tf.ensure_shape(tf.cast(image, tf.float32), [self.size, self.size, 3]), label

        def finish(number: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            images, label = batch
            if self.augmentation and self.augmentation.cutmix:
                images, label = cut_and_mix(
                    images, label, [seed, -1 - number], self.augmentation.cutmix
                )
            return self.preprocess(images), label

        pictures = self.dataset.encoded(self.examples)
        if self.augmentation:
            pictures = pictures.shuffle(
                len(self.examples), seed=seed, reshuffle_each_iteration=False
            )
        count = len(self.examples) / self.batch_size
        return (
            pictures.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(self.batch_size, drop_remainder=whole_batches)
            .enumerate()
            .map(finish)
            .apply(_counted(math.floor(count) if whole_batches else math.ceil(count)))
            .prefetch(2)
        )


@dataclass(frozen=True)
class Features:
    """Features of some views of the pictures, and their labels, from the disk.

    Attributes:
        maps: float16 `[views, images, height, width, channels]`.
        labels: float32 `[views, images, classes]`.
        batch_size: Images in a batch.
        seed: For the order.
    """

    maps: npt.NDArray[np.float16]
    labels: npt.NDArray[np.float32]
    batch_size: int
    seed: int = 0

    def batches(self, epoch: int) -> Any:
        """Returns a `tf.data.Dataset` of `(maps, labels)`, whole batches in an order of the epoch.

        Args:
            epoch: Its number; the views take turns.
        """
        maps, labels = (array[epoch % len(array)] for array in (self.maps, self.labels))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(labels))
        whole = len(order) // self.batch_size * self.batch_size
        return _stream(maps, labels, order[:whole].reshape(-1, self.batch_size))

    def in_order(self) -> Any:
        """Returns a `tf.data.Dataset` of the `(maps, labels)` of the first view, all of them."""
        count = self.labels.shape[1]
        rows = np.split(np.arange(count), range(self.batch_size, count, self.batch_size))
        return _stream(self.maps[0], self.labels[0], rows)


def _stream(maps: Any, labels: Any, batches: Sequence[Any] | npt.NDArray[Any]) -> Any:
    def read() -> Iterator[tuple[Any, Any]]:
        for rows in batches:
            yield maps[rows].astype(np.float32), labels[rows]

    signature = (
        tf.TensorSpec([None, *maps.shape[1:]], tf.float32),
        tf.TensorSpec([None, *labels.shape[1:]], tf.float32),
    )
    stream = tf.data.Dataset.from_generator(read, output_signature=signature)
    return stream.apply(_counted(len(batches))).prefetch(2).with_options(untuned())


def _counted(batches: int) -> Any:
    """Tells Keras how many batches will come; it would warn at the end of what it cannot count."""
    return tf.data.experimental.assert_cardinality(batches)


def cache_features(
    pictures: Pictures, trunk: keras.Model, views: int, folder: Path, advance: Advance = ignore
) -> Features:
    """Runs pictures through a trunk once, and keeps what comes out on disk.

    Args:
        pictures: The pictures.
        trunk: The frozen network.
        views: How many variations of each picture to keep.
        folder: Where; features that are already there, complete, are taken as they are.
        advance: Is told the number of images just done.

    Returns:
        The features, not in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LABELS_FILE).exists():
        all_labels, maps = [], None
        for view in range(views):
            row = 0
            for images, labels in pictures.batches(view):
                found = trunk.predict_on_batch(images)
                if maps is None:
                    shape = (views, len(pictures.examples), *found.shape[1:])
                    maps = np.lib.format.open_memmap(folder / MAPS_FILE, "w+", np.float16, shape)
                maps[view, row : row + len(found)] = found
                row += len(found)
                all_labels.append(labels.numpy())
                advance(len(found))
        if maps is not None:
            maps.flush()
        labels = np.concatenate(all_labels).reshape(views, len(pictures.examples), -1)
        # Written last, and renamed: where the labels are, the maps are complete.
        np.save(folder / f"partial-{LABELS_FILE}", labels)
        (folder / f"partial-{LABELS_FILE}").replace(folder / LABELS_FILE)
    return Features(
        np.load(folder / MAPS_FILE, mmap_mode="r"),
        np.load(folder / LABELS_FILE),
        pictures.batch_size,
        pictures.seed,
    )
