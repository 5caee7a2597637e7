"""VOC data as one `tf.data` pipeline: from tensorflow-datasets, or from a folder in VOC layout.

Both go through a tensorflow-datasets builder with the features of its `voc` dataset, so that one
reader serves both. A first pass over the split reads the annotations and the headers of the images;
the pictures themselves are decoded later, only those asked for, in parallel, in batches of equal
shape.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_datasets as tfds

from kgradcam import progress
from kgradcam.data import voc
from kgradcam.data.images import image_size, read_image
from kgradcam.data.voc_builder import FolderBuilder, data_folder, voc_builder, voc_names
from kgradcam.errors import UserError, did_you_mean

DEMO = "demo"
"""The name of the dataset that kgradcam makes itself."""
_PIXELS = 512 * 512  # of an image in a batch, on the average: large photographs fill no memory


@dataclass(frozen=True, slots=True)
class Example:
    """One image and its annotation.

    Attributes:
        index: Its place in the split, from 0.
        file_name: Its file name, as `"000001.jpg"`.
        width: Width in pixels.
        height: Height in pixels.
        objects: Its annotated objects.
    """

    index: int
    file_name: str
    width: int
    height: int
    objects: voc.Objects


class Batch(NamedTuple):
    """Images of one shape.

    Attributes:
        examples: Those that decode.
        images: uint8 `[batch, height, width, 3]`, RGB.
        damaged: Those that do not decode, and why.
    """

    examples: list[Example]
    images: npt.NDArray[np.uint8]
    damaged: list[tuple[Example, str]]


def untuned() -> tf.data.Options:
    """Returns options of a `tf.data` pipeline that is not tuned while it runs.

    The tuner's thread sleeps twice as long each time, up to a minute, and the end of an iterator
    now and then waits until it wakes (TensorFlow 2.21). Parallel calls are as many as cores.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


class Dataset:
    """A split of a VOC dataset: its annotations in memory, its images on demand.

    Args:
        name: `"voc/2007"`, or the folder.
        split: The split's name.
        builder: A tensorflow-datasets builder with the features of `voc`.
        skipped: What the builder has already left out.
        quiet: Shows no progress on stderr.

    Attributes:
        class_names: The classes that the dataset knows, in its own order.
        examples: The images, in the split's order, without those skipped.
        skipped: `(file name, reason)` of each image whose annotation or header is of no use.
        damaged: Why images did not decode, by index; those that were asked for so far.
    """

    def __init__(
        self,
        name: str,
        split: str,
        builder: Any,
        skipped: Sequence[tuple[str, str]] = (),
        quiet: bool = True,
    ) -> None:
        self.name = name
        self.split = split
        self.skipped = list(skipped)
        self.damaged: dict[int, str] = {}
        self.class_names = tuple(builder.info.features["objects"]["label"].names)
        # Without shuffling the order is that of the files, always the same.
        self._records = builder.as_dataset(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        ).with_options(untuned())
        count = builder.info.splits[split].num_examples
        with progress.bar("headers", count, "images", quiet, brief=True) as advance:
            self.examples = list(self._read_examples(advance))
        if not self.examples:
            first = "".join(f" Skipped {name}: {reason}" for name, reason in self.skipped[:1])
            raise UserError(f"split={split!r} of {self.name} holds no usable image.{first}")

    def _read_examples(self, advance: progress.Advance) -> Iterator[Example]:
        for index, record in enumerate(self._records.as_numpy_iterator()):
            advance(1)
            file_name = record["image/filename"].decode()
            try:
                width, height = image_size(record["image"])
            except UserError as error:
                self.skipped.append((file_name, str(error)))
                continue
            objects = record["objects"]
            ymin, xmin, ymax, xmax = objects["bbox"].astype(np.float64).T
            # tensorflow-datasets divides VOC's numbers by the size, in float32; two decimals bring
            # them back exactly. VOC counts from 1 and includes the last pixel.
            boxes = np.round(
                np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1), 2
            ) - np.array([1.0, 1.0, 0.0, 0.0])
            annotated = voc.Objects(
                names=tuple(self.class_names[label] for label in objects["label"]),
                boxes=boxes,
                difficult=objects["is_difficult"],
                poses=tuple(voc.POSES[pose] for pose in objects["pose"]),
                truncated=objects["is_truncated"],
            )
            yield Example(index, file_name, width, height, annotated)

    def digest(self) -> str:
        """Returns what tells these annotations from others: a part of a SHA-256 over them all."""
        digest = hashlib.sha256()
        for each in self.examples:
            said = (each.file_name, each.width, each.height, each.objects.names)
            digest.update(repr(said).encode())
            digest.update(each.objects.boxes.tobytes() + each.objects.difficult.tobytes())
        return digest.hexdigest()[:16]

    def left_out(self) -> list[tuple[str, str]]:
        """Returns `(file name, reason)` of all images that were of no use so far."""
        names = {example.index: example.file_name for example in self.examples}
        return [*self.skipped, *((names[i], reason) for i, reason in self.damaged.items())]

    def batches(
        self, examples: Sequence[Example], batch_size: int, size: int | None = None
    ) -> Iterator[Batch]:
        """Decodes images, in parallel, in batches of equal shape and a fixed order.

        Which images share a batch depends on those before them alone: without the images of whole
        batches, the others still come in the same batches.

        Args:
            examples: The images to decode, of this dataset.
            batch_size: Images in a batch, at most; fewer where they are larger than 512 x 512.
            size: Resizes every image to `size` x `size`. Default: native sizes; images of one
                shape then share batches.

        Yields:
            Each image once.
        """
        by_index = {example.index: example for example in examples}
        if not by_index:
            return
        # In the order of size: what is left over of each shape comes at the end in that order.
        shapes = [(size, size) if size else (each.height, each.width) for each in examples]
        key_by_shape = {shape: key for key, shape in enumerate(sorted(set(shapes)))}
        fitting = batch_size * _PIXELS // np.prod(list(key_by_shape), axis=1)
        counts = np.clip(fitting, 1, batch_size)
        encoded, decode = self.encoded(examples), self.decoder(examples, size)
        if len(key_by_shape) == 1:
            pipeline = encoded.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(counts[0])
        else:
            keys = np.zeros(max(by_index) + 1, np.int64)
            keys[[each.index for each in examples]] = [key_by_shape[shape] for shape in shapes]
            key_of, count_of = tf.constant(keys), tf.constant(counts)
            # Grouped while still encoded, so that waiting for a full batch costs little memory.
            pipeline = encoded.group_by_window(
                key_func=lambda index, encoded: key_of[index],
                reduce_func=lambda key, window: window.map(
                    decode, num_parallel_calls=tf.data.AUTOTUNE
                ).batch(batch_size),
                window_size_func=lambda key: count_of[key],
            )
        for indices, images, decoded in pipeline.prefetch(2).as_numpy_iterator():
            yield Batch(
                [by_index[int(index)] for index in indices[decoded]],
                images if decoded.all() else images[decoded],
                [(by_index[int(index)], self.damaged[int(index)]) for index in indices[~decoded]],
            )

    def encoded(self, examples: Sequence[Example]) -> Any:
        """Returns a `tf.data.Dataset` of `(index, encoded image)` of some examples, in order."""
        wanted = np.zeros(max(example.index for example in examples) + 1, bool)
        wanted[[example.index for example in examples]] = True
        is_wanted = tf.constant(wanted)
        return (
            self._records.take(len(wanted))
            .enumerate()
            .filter(lambda index, record: is_wanted[index])
            .map(lambda index, record: (index, record["image"]))
        )

    def decoder(self, examples: Sequence[Example], size: int | None = None) -> Callable[..., Any]:
        """Returns what maps `(index, encoded image)` to `(index, image, whether it decoded)`.

        An image that does not decode is black, and noted in `damaged`.

        Args:
            examples: The images that will come.
            size: See `batches`.
        """
        by_index = {example.index: example for example in examples}

        def decode(index: int, encoded: bytes) -> tuple[npt.NDArray[np.uint8], bool]:
            example = by_index[int(index)]
            shape = (size, size, 3) if size else (example.height, example.width, 3)
            try:
                image = read_image(encoded, size)
                if image.shape != shape:
                    raise UserError("The image has changed while it was read.")
            except UserError as error:
                self.damaged[example.index] = str(error)
                return np.zeros(shape, np.uint8), False
            return image, True

        def decode_in_graph(index: Any, encoded: Any) -> tuple[Any, Any, Any]:
            image, decoded = tf.numpy_function(decode, [index, encoded], [tf.uint8, tf.bool])
            return index, tf.ensure_shape(image, [None, None, 3]), tf.ensure_shape(decoded, [])

        return decode_in_graph


def open_dataset(
    name: str, split: str | None = None, data_dir: Path | None = None, quiet: bool = True
) -> Dataset:
    """Opens a split of a VOC dataset.

    Args:
        name: A VOC dataset of tensorflow-datasets (`"voc/2007"`, `"voc/2012"`), downloaded and
            prepared if it is not there yet; a folder in VOC layout; or `"demo"`.
        split: The split. Default: `"test"`, or `"all"` for a folder that has no such list.
        data_dir: Where tensorflow-datasets keeps its data. Default: `TFDS_DATA_DIR`, or
            `~/tensorflow_datasets`.
        quiet: Shows no progress on stderr.

    Returns:
        The dataset, its annotations read.

    Raises:
        UserError: The dataset or the split does not exist, is empty, or cannot be downloaded.
    """
    if name == DEMO:
        return _open_folder(demo_folder(data_dir), name, split, quiet)
    if name == "voc" or name.startswith("voc/"):
        return _open_voc(name, split or "test", data_dir, quiet)
    if Path(name).is_dir():
        return _open_folder(Path(name), name, split, quiet)
    options = [*voc_names(), DEMO]
    raise UserError(
        f"dataset={name!r} is neither a folder in VOC layout nor one of {', '.join(options)}."
        f"{did_you_mean(name, options)}"
    )


def demo_folder(data_dir: Path | None = None) -> Path:
    """Returns the demo dataset's folder, and makes the dataset if it is not there yet."""
    from kgradcam.data.demo_scenes import write_demo_dataset

    folder = data_folder(data_dir) / "kgradcam_demo"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_demo_dataset(folder)
    return folder


def _open_folder(root: Path, name: str, split: str | None, quiet: bool) -> Dataset:
    folder = voc.VocFolder(root)
    if split is None:
        split = "test" if "test" in folder.split_files else voc.WHOLE_FOLDER
    builder = FolderBuilder(folder, split, quiet)
    return Dataset(name, split, builder, builder.skipped, quiet)


def _open_voc(name: str, split: str, data_dir: Path | None, quiet: bool) -> Dataset:
    builder = voc_builder(name, data_dir)
    split = "validation" if split == "val" else split
    base = split.split("[")[0]
    if base not in builder.info.splits:
        options = list(builder.info.splits)
        raise UserError(
            f"split={split!r} is no split of {name}.{did_you_mean(base, options)} "
            f"It has: {', '.join(options)}."
        )
    try:
        return Dataset(name, split, builder, quiet=quiet)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"split={split!r} of {name} cannot be read: {error}") from error
