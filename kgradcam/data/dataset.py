"""Datasets: annotations in memory, and images decoded on demand by a `tf.data` pipeline.

Images are decoded in parallel, in batches of equal shape and in a fixed order. Any layout that
gives `Example`s is a dataset: files (`layouts`) and tensorflow-datasets (`tfds_records`).
"""

import copy
import hashlib
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.data.batch_order import batch_limit
from kgradcam.data.examples import Example
from kgradcam.data.images import MAX_IMAGE_BYTES, Size, read_image, sides
from kgradcam.data.splits import (
    Split,
    Summary,
    annotation_bytes,
    collect,
    require_images,
    summarize,
)
from kgradcam.errors import UserError
from kgradcam.files import bytes_digest, read_bytes
from kgradcam.storage import StorageError


class Batch(NamedTuple):
    """Images of one shape.

    Attributes:
        examples: The images that decode.
        images: uint8 `[batch, height, width, 3]`, RGB.
        damaged: The images that do not decode, with the reason.
    """

    examples: list[Example]
    images: npt.NDArray[np.uint8]
    damaged: list[tuple[Example, str]]


def untuned() -> tf.data.Options:
    """Returns the options of a `tf.data` pipeline without autotuning.

    The tuner's thread sleeps up to a minute, and the end of an iterator sometimes waits for it
    (TensorFlow 2.21). Without the tuner there is one parallel call a core.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


class Dataset:
    """A split of a dataset.

    Args:
        name: `"voc/2007"`, or the folder.
        split: The name of the split.
        examples: Its images, in their order.
        skipped: `(file name, reason)` of each image that the layout skipped.
        class_names: The classes of the dataset. Default: those of the annotated objects, sorted.
        records: For images without a file of their own, a `tf.data.Dataset` of the encoded images
            of the split; an example's `index` is its position there.
        annotated: Whether the layout has annotations at all.
        description: The layout in words.
        digests: Filled with the digest of each image file that is decoded, by index, so that no
            file is read twice. Default: no digests.

    Attributes:
        name, split, examples, skipped, class_names, annotated, description: As given.
        damaged: The reason why an image did not decode, by index; of the images read so far.

    Raises:
        UserError: There are no examples.
    """

    def __init__(
        self,
        name: str,
        split: str,
        examples: Sequence[Example],
        skipped: Sequence[tuple[str, str]] = (),
        class_names: Sequence[str] | None = None,
        records: Any = None,
        annotated: bool = True,
        description: str = "tensorflow-datasets",
        digests: dict[int, str] | None = None,
    ) -> None:
        require_images(name, split, len(examples), skipped)
        if class_names is None:
            class_names = sorted(set().union(*(each.objects.classes for each in examples)))
        self.name = name
        self.split = split
        self.examples = list(examples)
        self.skipped = list(skipped)
        self.class_names = tuple(class_names)
        self.damaged: dict[int, str] = {}
        self.annotated = annotated
        self.description = description
        self._records = records
        self._digests = digests
        self._failure: StorageError | None = None

    def part(self, file_names: Container[str]) -> Self:
        """Returns the dataset with some of its images only, in the same order."""
        part = copy.copy(self)
        part.examples = [each for each in self.examples if each.file_name in file_names]
        part.skipped = [each for each in self.skipped if each[0] in file_names]
        part.damaged = {}
        return part

    def digest(self) -> str:
        """Returns 16 hexadecimal digits of a SHA-256 over all annotations, to detect changes."""
        digest = hashlib.sha256()
        for each in self.examples:
            digest.update(annotation_bytes(each))
        return digest.hexdigest()[:16]

    @classmethod
    def of(cls, split: Split) -> Self:
        """Reads a split into memory."""
        examples, skipped = collect(split.results)
        return cls(
            split.name,
            split.split,
            examples,
            skipped,
            split.class_names,
            split.records,
            split.annotated,
            split.description,
        )

    def summary(self) -> Summary:
        """Returns the split without its images."""
        return summarize(
            Split(
                self.name,
                self.split,
                chain(self.examples, self.skipped),
                self.class_names,
                self.annotated,
                self.description,
            )
        )

    def left_out(self) -> list[tuple[str, str]]:
        """Returns `(file name, reason)` of the skipped and, so far, the damaged images."""
        names = {example.index: example.file_name for example in self.examples}
        return [*self.skipped, *((names[i], reason) for i, reason in self.damaged.items())]

    def batches(
        self, examples: Sequence[Example], batch_size: int, size: Size | None = None
    ) -> Iterator[Batch]:
        """Decodes images in parallel, in batches of equal shape and in a fixed order.

        An interrupted run can be resumed: without the images of whole batches, the other images
        come in the same batches as before.

        Args:
            examples: The images to decode, of this dataset.
            batch_size: The maximum number of images in a batch. Batches of images larger than
                512 x 512 have fewer.
            size: Resizes every image to a square of this side, or to `(width, height)`. Default:
                native sizes; only images of equal shape share a batch.

        Yields:
            Batches, with each image once.
        """
        by_index = {example.index: example for example in examples}
        if not by_index:
            return
        # Sorted, because the incomplete batches come last, in the order of these keys.
        fixed = sides(size)[::-1] if size else None
        shapes = [fixed or (each.height, each.width) for each in examples]
        key_by_shape = {shape: key for key, shape in enumerate(sorted(set(shapes)))}
        counts = np.array([batch_limit(shape, batch_size) for shape in key_by_shape])
        encoded, decode = self.encoded(examples), self.decoder(examples, size)
        if len(key_by_shape) == 1:
            pipeline = encoded.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(counts[0])
        else:
            keys = np.zeros(max(by_index) + 1, np.int64)
            keys[[each.index for each in examples]] = [key_by_shape[shape] for shape in shapes]
            key_of, count_of = tf.constant(keys), tf.constant(counts)
            # Grouped before decoding, so that images that wait for a full batch need little memory.
            pipeline = encoded.group_by_window(
                key_func=lambda index, encoded: key_of[index],
                reduce_func=lambda key, window: window.map(
                    decode, num_parallel_calls=tf.data.AUTOTUNE
                ).batch(batch_size),
                window_size_func=lambda key: count_of[key],
            )
        try:
            for indices, images, decoded in pipeline.prefetch(2).as_numpy_iterator():
                yield Batch(
                    [by_index[int(index)] for index in indices[decoded]],
                    images if decoded.all() else images[decoded],
                    [(by_index[int(i)], self.damaged[int(i)]) for i in indices[~decoded]],
                )
        except tf.errors.OpError as error:
            raise self._failure or error from None

    def encoded(self, examples: Sequence[Example]) -> Any:
        """Returns a `tf.data.Dataset` of `(index, encoded image)`, sorted by index.

        The encoded image is empty if it has a file: `decoder` then reads the file. So neither
        groups nor a shuffle buffer hold the bytes of files.

        Args:
            examples: Images of this dataset.
        """
        indices = np.sort([example.index for example in examples])
        if self._records is None:
            pairs = tf.data.Dataset.from_tensor_slices((indices, np.full(len(indices), b"")))
            return pairs.with_options(untuned())
        is_wanted = tf.constant(np.isin(np.arange(indices[-1] + 1), indices))
        return (
            self._records.take(len(is_wanted))
            .enumerate()
            .filter(lambda index, encoded: is_wanted[index])
            .with_options(untuned())
        )

    def decoder(self, examples: Sequence[Example], size: Size | None = None) -> Callable[..., Any]:
        """Returns a function of `(index, encoded image)` for `tf.data.Dataset.map`.

        It returns `(index, image, decoded)`. An image that does not decode is black, `decoded` is
        then false, and the reason is in `damaged`.

        Args:
            examples: The images that the pipeline contains.
            size: As in `batches`.
        """
        by_index = {example.index: example for example in examples}

        def decode(index: int, encoded: bytes) -> tuple[npt.NDArray[np.uint8], bool]:
            example = by_index[int(index)]
            shape = (*(sides(size)[::-1] if size else (example.height, example.width)), 3)
            try:
                if example.path:
                    encoded = read_bytes(example.path, MAX_IMAGE_BYTES)
                    if self._digests is not None:
                        self._digests[example.index] = bytes_digest(encoded)
                image = read_image(encoded, size)
                if image.shape != shape:
                    raise UserError(
                        f"The file has changed: its size was {example.width}x{example.height}."
                    )
            except StorageError as error:  # it would lose its type on the way through TensorFlow
                self._failure = error
                raise
            except UserError as error:
                self.damaged[example.index] = str(error)
            except OSError as error:
                self.damaged[example.index] = f"The image cannot be read: {error.strerror}."
            else:
                return image, True
            return np.zeros(shape, np.uint8), False

        def decode_in_graph(index: Any, encoded: Any) -> tuple[Any, Any, Any]:
            image, decoded = tf.numpy_function(decode, [index, encoded], [tf.uint8, tf.bool])
            return index, tf.ensure_shape(image, [None, None, 3]), tf.ensure_shape(decoded, [])

        return decode_in_graph
