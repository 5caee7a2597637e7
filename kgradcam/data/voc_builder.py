"""Builders of tensorflow-datasets for VOC: genuine ones, and one that reads a folder in place."""

import contextlib
import importlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_datasets as tfds

from kgradcam import progress
from kgradcam.data import voc
from kgradcam.data.images import image_size, is_turned, read_image
from kgradcam.errors import UserError

_MIRROR_TIMEOUT_SECONDS = 10


def data_folder(data_dir: Path | None = None) -> Path:
    """Returns where datasets are kept: `data_dir`, `TFDS_DATA_DIR`, or `~/tensorflow_datasets`."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def voc_names() -> list[str]:
    """Returns the VOC datasets that tensorflow-datasets has: `"voc/2007"`, `"voc/2012"`."""
    return [f"voc/{config.name}" for config in tfds.builder_cls("voc").builder_configs.values()]


def voc_builder(name: str, data_dir: Path | None = None) -> Any:
    """Returns the builder of a VOC dataset, which is downloaded and prepared if it is not there.

    Args:
        name: One of `voc_names()`, or `"voc"`.
        data_dir: See `data_folder`.

    Raises:
        UserError: There is no such dataset, or it cannot be downloaded.
    """
    if name != "voc" and name not in voc_names():
        raise UserError(
            f"dataset={name!r} is not in tensorflow-datasets, which has {', '.join(voc_names())}."
        )
    builder = tfds.builder(name, data_dir=data_folder(data_dir))
    if not builder.is_prepared():
        _require_mirror(name)
        _download_and_prepare(builder)
    return builder


def _download_and_prepare(builder: Any) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # it tells its progress, which is no result
        builder.download_and_prepare()


def _require_mirror(name: str) -> None:
    """Fails in seconds where the network is missing; the downloader alone would try for minutes."""
    module = importlib.import_module(tfds.builder_cls("voc").__module__)
    try:
        urllib.request.urlopen(module._VOC_DATA_URL, timeout=_MIRROR_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the mirror answers, if only to say that it lists no folders
    except OSError as error:
        raise UserError(
            f"{name} is not in the data folder, and its mirror cannot be reached ({error}). With "
            "an unpacked VOCdevkit at hand: `kgradcam prepare --devkit VOCdevkit --year "
            f"{name.rpartition('/')[2]}`; or give --dataset a folder in VOC layout, or demo."
        ) from error


def _features(class_names: Sequence[str]) -> Any:
    """The features of `voc` in tensorflow-datasets, for any classes, without those of the image."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(
                {
                    "label": tfds.features.ClassLabel(names=class_names),
                    "bbox": tfds.features.BBoxFeature(),
                    "pose": tfds.features.ClassLabel(names=voc.POSES),
                    "is_truncated": np.bool_,
                    "is_difficult": np.bool_,
                }
            ),
        }
    )


def _read_folder(
    folder: voc.VocFolder, split: str, annotated: bool = True, quiet: bool = True
) -> tuple[list[tuple[Path, voc.Objects, tuple[int, int]]], list[tuple[str, str]]]:
    """Reads a split's annotations and image sizes; what cannot be read is named with its reason."""
    records, skipped = [], []
    image_ids = folder.image_ids(split)
    with progress.bar("annotations", len(image_ids), "images", quiet, brief=True) as advance:
        for image_id in image_ids:
            name = image_id.encode(errors="backslashreplace").decode()
            try:
                if name != image_id:
                    raise UserError("Its name is not UTF-8.")
                image = folder.image_path(image_id)
                name = image.name
                size, objects = image_size(image), voc.NO_OBJECTS
                if annotated:
                    objects = voc.parse_annotation(folder.annotation_path(image_id))
                    _check_boxes(image, objects, size)
                records.append((image, objects, size))
            except (UserError, OSError) as error:
                skipped.append((name, str(error)))
            advance(1)
    return records, skipped


def _read_file(path: bytes) -> bytes:
    """The file's content; nothing, which decodes to nothing, where it has gone since."""
    try:
        return Path(path.decode()).read_bytes()
    except OSError:
        return b""


def _check_boxes(image: Path, objects: voc.Objects, size: tuple[int, int]) -> None:
    """Refuses annotations of another picture than this one.

    A box may stick out by a pixel, as those of tools that count from 0 do.
    """
    width, height = size
    if objects.image_size == (height, width) != size and is_turned(image):
        raise UserError(
            f"{image.name} is stored as {width}x{height} for viewers to turn, and annotated as "
            f"{height}x{width}. Save it upright, without EXIF orientation."
        )
    outside = (objects.boxes < -1).any(axis=1)
    outside |= (objects.boxes[:, 2:] > np.array([width + 1, height + 1])).any(axis=1)
    if outside.any():
        raise UserError(
            f"The box {objects.boxes[outside][0].tolist()} leaves {image.name}, which is "
            f"{width}x{height}."
        )


def _normalized(box: npt.NDArray[np.float64], size: tuple[int, int]) -> tuple[float, ...]:
    """A box as tensorflow-datasets keeps VOC's: ymin, xmin, ymax, xmax from 1, over the size."""
    xmin, ymin, xmax, ymax = box
    width, height = size
    return (ymin + 1) / height, (xmin + 1) / width, ymax / height, xmax / width


class FolderBuilder(tfds.core.DatasetBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
    """Reads a split of a folder in VOC layout in place: nothing is copied or prepared.

    Args:
        folder: The folder.
        split: One of its splits.
        quiet: Shows no progress on stderr.

    Attributes:
        skipped: `(file name, reason)` of each image that cannot be used.
    """

    name = "voc_folder"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder: voc.VocFolder, split: str, quiet: bool = True) -> None:
        self._folder = folder
        records, self.skipped = _read_folder(folder, split, quiet=quiet)
        self._names = sorted({name for _, objects, _ in records for name in objects.names})
        super().__init__(data_dir=folder.root)
        info = tfds.core.SplitInfo(name=split, shard_lengths=[len(records)], num_bytes=0)
        self.info.set_splits(tfds.core.SplitDict([info]))
        self._slices = self._to_tensors(records)  # in much less memory

    @property
    def data_path(self) -> Path:
        """The folder itself, where tensorflow-datasets looks whether there are data."""
        return self._folder.root

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(builder=self, features=_features(self._names))

    def _download_and_prepare(self, **kwargs: Any) -> None:
        raise NotImplementedError("A folder in VOC layout is read in place.")

    def _to_tensors(
        self, records: Sequence[tuple[Path, voc.Objects, tuple[int, int]]]
    ) -> tuple[tf.Tensor, dict[str, tf.RaggedTensor]]:
        features = self.info.features
        label, pose = features["objects"]["label"], features["objects"]["pose"]
        paths = tf.constant([str(image) for image, _, _ in records], tf.string)
        annotated = [(objects, size) for _, objects, size in records]
        lengths = np.array([len(objects.names) for objects, _ in annotated], np.int64)

        def ragged(rows: Any, dtype: Any, *shape: int) -> tf.RaggedTensor:
            values = np.array([value for row in rows for value in row], dtype)
            return tf.RaggedTensor.from_row_lengths(values.reshape(-1, *shape), lengths)

        objects = {
            "label": ragged((map(label.str2int, each.names) for each, _ in annotated), np.int64),
            "bbox": ragged(
                ([_normalized(box, size) for box in each.boxes] for each, size in annotated),
                np.float32,
                4,
            ),
            "pose": ragged((map(pose.str2int, each.poses) for each, _ in annotated), np.int64),
            "is_truncated": ragged((each.truncated for each, _ in annotated), np.bool_),
            "is_difficult": ragged((each.difficult for each, _ in annotated), np.bool_),
        }
        return paths, objects

    def _as_dataset(
        self, split: str, decoders: Any = None, read_config: Any = None, shuffle_files: bool = False
    ) -> tf.data.Dataset:
        features = self.info.features

        def read(path: Any, objects: Any) -> Any:
            record = {
                "image": tf.ensure_shape(tf.numpy_function(_read_file, [path], tf.string), []),
                "image/filename": tf.strings.split(path, os.sep)[-1],
                "objects": objects,
            }
            return features.decode_example(record, decoders=decoders)

        return tf.data.Dataset.from_tensor_slices(self._slices).map(
            read, num_parallel_calls=tf.data.AUTOTUNE
        )


def prepare(
    devkit: Path,
    year: str,
    data_dir: Path | None = None,
    strict: bool = False,
    quiet: bool = True,
) -> tuple[Path, dict[str, int], list[tuple[str, str]]]:
    """Writes `voc/2007` or `voc/2012` of tensorflow-datasets from an unpacked devkit.

    Those who have the tar files need no download: afterwards `tfds.load("voc/2007")` reads it in
    any process.

    Args:
        devkit: The folder `VOCdevkit`, with `VOC2007/` or `VOC2012/` inside.
        year: `"2007"` or `"2012"`.
        data_dir: See `data_folder`.
        strict: Stops at the first image that cannot be written, where it would be left out.
        quiet: Shows no progress on stderr.

    Returns:
        The folder written, the number of images of each split, and `(file name, reason)` for each
        image left out.

    Raises:
        UserError: There is no such devkit, it has none of VOC's image lists, its classes are not
            VOC's, or the dataset is already there.
    """
    if f"voc/{year}" not in voc_names():
        years = ", ".join(name.removeprefix("voc/") for name in voc_names())
        raise UserError(f"year={year!r} is not one of {years}.")
    folder = voc.VocFolder(devkit / f"VOC{year}")
    lists = folder.split_files
    splits = {
        split: name
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        if name in lists
    }
    if not splits:
        raise UserError(f"{folder.root}/ImageSets/Main holds none of train.txt, val.txt, test.txt.")
    skipped: list[tuple[str, str]] = []

    def skip(name: str, reason: str) -> None:
        if strict:
            raise UserError(f"--strict: {name}: {reason}")
        skipped.append((name, reason))

    class DevkitBuilder(tfds.builder_cls("voc"), skip_registration=True):  # type: ignore[misc, call-arg]
        name = "voc"

        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: self._generate_examples(name) for split, name in splits.items()}

        def _generate_examples(self, list_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
            # VOC keeps the annotations of the test images of 2012 to itself.
            annotated = list_name != "test" or self.builder_config.has_test_annotations
            records, unread = _read_folder(folder, list_name, annotated, quiet)
            for name, reason in unread:
                skip(name, reason)
            with progress.bar(f"{list_name} images", len(records), "images", quiet) as advance:
                for image, objects, size in records:
                    try:
                        example = _voc_example(image, objects, size)
                    except UserError as error:
                        skip(image.name, str(error))
                    else:
                        yield image.stem, example
                    advance(1)

    builder = DevkitBuilder(config=year, data_dir=data_folder(data_dir))
    if builder.is_prepared():
        raise UserError(f"{builder.data_path} is already there; remove it to prepare it anew.")
    _download_and_prepare(builder)
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    return Path(builder.data_path), counts, skipped


def _voc_example(image: Path, objects: voc.Objects, size: tuple[int, int]) -> dict[str, Any]:
    """An example as `voc` of tensorflow-datasets has it.

    Raises:
        UserError: The image does not decode, or an object cannot be written: its class is not one
            of VOC's, or its box leaves the image.
    """
    read_image(image)
    described = []
    for name, box, pose, truncated, difficult in zip(
        objects.names,
        objects.boxes,
        objects.poses,
        objects.truncated,
        objects.difficult,
        strict=True,
    ):
        name = name.lower()
        if name not in voc.CLASSES:
            raise UserError(f"{image.name}: {name!r} is no class of VOC.")
        bbox = _normalized(box, size)
        if min(bbox) < 0 or max(bbox) > 1:
            raise UserError(f"{image.name}: the box {box.tolist()} leaves the image of {size}.")
        described.append(
            {
                "label": name,
                "bbox": tfds.features.BBox(*bbox),
                "pose": pose,
                "is_truncated": truncated,
                "is_difficult": difficult,
            }
        )
    plain = {each["label"] for each in described if not each["is_difficult"]}
    return {
        "image": image,
        "image/filename": image.name,
        "objects": described,
        "labels": sorted({each["label"] for each in described}),
        "labels_no_difficult": sorted(plain),
    }
