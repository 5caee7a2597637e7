"""Batches for training: augmented images, or cached feature maps of a frozen trunk."""

import io
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
from kgradcam.errors import UserError
from kgradcam.files import write_atomically
from kgradcam.metrics.classification import UNKNOWN
from kgradcam.progress import Advance, ignore
from kgradcam.training.augmentation import Augmentation, augment

MAPS_FILE, LABELS_FILE = "maps.npy", "labels.npy"


def image_labels(
    examples: Sequence[Example], class_names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Derives image labels from object annotations.

    Args:
        examples: The images.
        class_names: The classes.

    Returns:
        float32 `[images, classes]`: 1 with a label without box, or an object that is not
        difficult; `UNKNOWN` with difficult objects only; 0 without objects of the class.
    """
    labels = np.zeros((len(examples), len(class_names)), np.float32)
    columns = {name: column for column, name in enumerate(class_names)}
    for row, example in zip(labels, examples, strict=True):
        for name, difficult in zip(example.objects.names, example.objects.difficult, strict=True):
            if name in columns:
                column = columns[name]
                row[column] = 1.0 if not difficult or row[column] == 1.0 else UNKNOWN
        row[[columns[name] for name in example.objects.labels if name in columns]] = 1.0
    return labels


@dataclass(frozen=True)
class LabelledImages:
    """Images of a dataset with their labels, preprocessed and in batches.

    Attributes:
        dataset: The dataset.
        examples: The images.
        labels: float32 `[images, classes]`, see `image_labels`.
        preprocess: Maps float32 RGB in [0, 255] to the input of the network.
        size: Height and width of the images in pixels.
        batch_size: Images in a batch.
        augmentation: Random variations. `None` only resizes and keeps the order.
        seed: Random seed of the order and the variations.
    """

    dataset: Dataset
    examples: Sequence[Example]
    labels: npt.NDArray[np.float32]
    preprocess: Callable[[Any], Any]
    size: int
    batch_size: int
    augmentation: Augmentation | None = None
    seed: int = 0

    def batches(self, epoch: int = 0, whole_batches: bool = False) -> Any:
        """Returns a `tf.data.Dataset` of `(images, labels)` with each image once.

        Args:
            epoch: Selects the order and the variations, together with the random seed.
            whole_batches: Whether to drop the images after the last whole batch.
        """
        seed = int(np.random.default_rng([self.seed, epoch]).integers(2**31))
        # Decoding is parallel and sees only an image's index, so labels are looked up by index.
        table = np.full((max(each.index for each in self.examples) + 1, self.labels.shape[1]), 0.0)
        table[[example.index for example in self.examples]] = self.labels
        labels = tf.constant(table, tf.float32)
        decode = self.dataset.decoder(self.examples, None if self.augmentation else self.size)

        def prepare(index: Any, encoded: Any) -> tuple[Any, Any]:
            index, image, decoded = decode(index, encoded)
            # An image that cannot be decoded is blank and must not affect the loss.
            label = tf.where(decoded, labels[index], UNKNOWN)
            if self.augmentation:
                image = augment(image, self.size, [seed, index], self.augmentation)
            return tf.ensure_shape(tf.cast(image, tf.float32), [self.size, self.size, 3]), label

        def preprocess(images: Any, label: Any) -> tuple[Any, Any]:
            return self.preprocess(images), label

        images = self.dataset.encoded(self.examples)
        if self.augmentation:
            images = images.shuffle(len(self.examples), seed=seed, reshuffle_each_iteration=False)
        count = len(self.examples) / self.batch_size
        return (
            images.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(self.batch_size, drop_remainder=whole_batches)
            .map(preprocess)
            .apply(_counted(math.floor(count) if whole_batches else math.ceil(count)))
            .prefetch(2)
        )


@dataclass(frozen=True)
class CachedFeatures:
    """Feature maps of several variations of each image, memory-mapped, and the labels.

    Attributes:
        maps: float16 `[views, images, height, width, channels]`, a view for each variation.
        labels: float32 `[views, images, classes]`.
        batch_size: Images in a batch.
        seed: Random seed of the order.
    """

    maps: npt.NDArray[np.float16]
    labels: npt.NDArray[np.float32]
    batch_size: int
    seed: int = 0

    def batches(self, epoch: int) -> Any:
        """Returns a `tf.data.Dataset` of `(maps, labels)` in whole batches, shuffled.

        Args:
            epoch: Selects the order, together with the random seed, and the view in turn.
        """
        maps, labels = (array[epoch % len(array)] for array in (self.maps, self.labels))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(labels))
        whole = len(order) // self.batch_size * self.batch_size
        return _stream(maps, labels, order[:whole].reshape(-1, self.batch_size))

    def in_order(self) -> Any:
        """Returns a `tf.data.Dataset` of all `(maps, labels)` of the first view."""
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
    """Declares the number of batches; Keras warns at the end of a dataset of unknown length."""
    return tf.data.experimental.assert_cardinality(batches)


def cache_features(
    images: LabelledImages, trunk: keras.Model, views: int, folder: Path, advance: Advance = ignore
) -> CachedFeatures:
    """Computes feature maps once and keeps them on disk.

    Args:
        images: The images.
        trunk: The frozen network.
        views: Number of variations of each image.
        folder: Folder of the cache. A complete cache is used as it is.
        advance: Called with the number of images just done.

    Returns:
        The feature maps, memory-mapped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LABELS_FILE).exists():
        labels = _compute_features(images, trunk, views, folder / MAPS_FILE, advance)
        # The labels are written last, so their presence marks complete feature maps.
        buffer = io.BytesIO()
        np.save(buffer, labels)
        write_atomically(folder / LABELS_FILE, buffer.getvalue())
    try:
        maps = np.load(folder / MAPS_FILE, mmap_mode="r")
        labels = np.load(folder / LABELS_FILE)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{folder} is damaged ({error}). Delete it, and resume.") from error
    return CachedFeatures(maps, labels, images.batch_size, images.seed)


def _compute_features(
    images: LabelledImages, trunk: keras.Model, views: int, path: Path, advance: Advance
) -> npt.NDArray[np.float32]:
    """Writes feature maps to a `.npy` file and returns the labels `[views, images, classes]`."""
    maps, labels = None, []
    for view in range(views):
        row = 0
        for batch, batch_labels in images.batches(view):
            found = trunk.predict_on_batch(batch)
            if maps is None:  # The first batch reveals the shape.
                shape = (views, len(images.examples), *found.shape[1:])
                maps = np.lib.format.open_memmap(path, "w+", np.float16, shape)
            maps[view, row : row + len(found)] = found
            row += len(found)
            labels.append(batch_labels.numpy())
            advance(len(found))
    if maps is not None:
        maps.flush()
    return np.concatenate(labels).reshape(views, len(images.examples), -1)
