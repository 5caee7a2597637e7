"""Arrays larger than memory and datasets, explained one batch after another."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgradcam.errors import UserError

Chosen = tuple[Any, Any, Any]
"""The arguments `classes`, `class_per_image` and `classes_per_image`."""


def each_batch(images: Any, batch_size: int | None, chosen: Chosen) -> Iterator[tuple[Any, Chosen]]:
    """Yields the batches of images, and the classes that are chosen for each.

    Args:
        images: A batch as `GradCAM` takes it, which `batch_size` cuts; or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches, whose labels are ignored.
        batch_size: The number of images of a part. Default: all.
        chosen: The classes for all images, one for each, several for each.

    Raises:
        UserError: `batch_size` is no positive integer or given for a dataset, or there are more
            entries for images than images.
    """
    is_dataset = isinstance(images, tf.data.Dataset | keras.utils.PyDataset)
    if batch_size is None and not is_dataset:
        yield images, chosen
        return
    if is_dataset and batch_size is not None:
        raise UserError("A dataset has batches of its own: dataset.batch(32), without batch_size=.")
    start, (classes, *per_image) = 0, chosen
    for part, length in _of_dataset(images) if is_dataset else _of_arrays(images, batch_size):
        rows = [None if each is None else each[start : start + length] for each in per_image]
        start += length
        _check_entries(per_image, start, at_least=True)
        yield part, (classes, rows[0], rows[1])
    if not start:
        raise UserError("images must hold at least one image. Received: none.")
    _check_entries(per_image, start)


def _check_entries(per_image: Sequence[Any], count: int, at_least: bool = False) -> None:
    for each in per_image:
        if hasattr(each, "__len__") and (len(each) < count or (len(each) > count and not at_least)):
            raise UserError(
                "class_per_image and classes_per_image must have an entry for each of the "
                f"{count} images. Received: {len(each)}."
            )


def _of_dataset(dataset: Any) -> Iterator[tuple[Any, int]]:
    """The inputs of each batch, without labels and sample weights, as in `model.predict`."""
    numbered = isinstance(dataset, keras.utils.PyDataset)
    for batch in (dataset[i] for i in range(len(dataset))) if numbered else dataset:
        images = batch[0] if isinstance(batch, tuple) else batch
        yield images, len(tf.nest.flatten(images)[0])


def _of_arrays(images: Any, batch_size: Any) -> Iterator[tuple[Any, int]]:
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise UserError(f"batch_size must be a positive integer. Received: {batch_size!r}.")
    if is_list_of_pictures(images):
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            yield part, len(part)
        return
    arrays = tf.nest.flatten(images)
    for start in range(0, len(arrays[0]), batch_size):
        parts = [each[start : start + batch_size] for each in arrays]
        yield tf.nest.pack_sequence_as(images, parts), len(parts[0])


def is_list_of_pictures(images: Any) -> bool:
    """Returns whether images are a list of pictures `[height, width, channels]` of one size."""
    if not isinstance(images, list | tuple) or not images:
        return False
    shapes = {np.shape(each) for each in images}
    return len(shapes) == 1 and len(shapes.pop()) == 3


def joined(parts: Sequence[Any]) -> Any:
    """Returns the arrays of all batches as one.

    Raises:
        UserError: Their shapes differ, as for images of several sizes.
    """
    shapes = {each.shape[1:] for each in parts}
    if len(shapes) > 1:
        raise UserError(
            f"The heatmaps of the batches have several sizes, {sorted(shapes)}, and make no array. "
            "Explain them one by one: for batch in dataset: cam(batch)."
        )
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
