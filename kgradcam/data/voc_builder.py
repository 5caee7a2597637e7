"""VOC through tensorflow-datasets: `voc/2007` and `voc/2012`, read, downloaded or prepared."""

import contextlib
import importlib
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from typing_extensions import override

from kgradcam import progress
from kgradcam.data import voc
from kgradcam.data.dataset import Dataset, untuned
from kgradcam.data.examples import Example, Objects
from kgradcam.data.images import image_size, read_image
from kgradcam.data.voc_folder import VocFolder, read_folder
from kgradcam.errors import UserError, did_you_mean

_MIRROR_TIMEOUT_SECONDS = 10
_OTHER_WAYS = "make it from an unpacked VOCdevkit with `kgradcam prepare`"


def voc_names() -> list[str]:
    """Returns the VOC datasets of tensorflow-datasets: `"voc/2007"`, `"voc/2012"`."""
    return [f"voc/{config.name}" for config in tfds.builder_cls("voc").builder_configs.values()]


def open_voc(name: str, split: str, data_dir: Path, quiet: bool = True) -> Dataset:
    """Opens a split of a VOC dataset; downloads and prepares the dataset if it is missing.

    Args:
        name: One of `voc_names()`, or `"voc"`.
        split: `"train"`, `"validation"` (or `"val"`), `"test"`, or a slice as `"train[:10%]"`.
        data_dir: The data folder of tensorflow-datasets.
        quiet: Shows no progress on stderr.

    Raises:
        UserError: The dataset or the split does not exist, or the download fails.
    """
    builder = _prepared_builder(name, data_dir)
    split = "validation" if split == "val" else split
    base = split.split("[")[0]
    options = list(builder.info.splits)
    if base not in options:
        raise UserError(
            f"split={split!r} is not a split of {name}.{did_you_mean(base, options)} "
            f"It has: {', '.join(options)}."
        )
    try:
        # Without shuffling or interleaving, the order is always that of the files.
        records = builder.as_dataset(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        ).with_options(untuned())
        count = builder.info.splits[split].num_examples
    except ValueError as error:
        raise UserError(f"split={split!r} of {name} cannot be read: {error}") from error
    with (
        progress.bar("headers", count, "images", quiet, brief=True) as advance,
        _damage_named(name, Path(builder.data_path)),
    ):
        class_names = builder.info.features["objects"]["label"].names
        examples, skipped = _read_records(records, class_names, advance)
        if len(examples) + len(skipped) != count:
            raise ValueError(f"{len(examples) + len(skipped)} of {count} images are there.")
    return Dataset(
        name, split, examples, skipped, class_names, records.map(lambda record: record["image"])
    )


def _read_records(
    records: Any, class_names: Sequence[str], advance: progress.Advance
) -> tuple[list[Example], list[tuple[str, str]]]:
    examples, skipped = [], []
    for index, record in enumerate(records.as_numpy_iterator()):
        advance(1)
        file_name = record["image/filename"].decode()
        try:
            size = image_size(record["image"])
        except UserError as error:
            skipped.append((file_name, str(error)))
            continue
        objects = record["objects"]
        annotated = Objects(
            names=tuple(class_names[label] for label in objects["label"]),
            boxes=_pixel_boxes(objects["bbox"], size),
            difficult=objects["is_difficult"],
            poses=tuple(voc.POSES[pose] for pose in objects["pose"]),
            truncated=objects["is_truncated"],
        )
        examples.append(Example(index, file_name, *size, annotated))
    return examples, skipped


def _pixel_boxes(bbox: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Inverts `_normalized`; rounding to two decimals removes the error of float32 exactly."""
    ymin, xmin, ymax, xmax = bbox.astype(np.float64).T
    width, height = size
    one_based = np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1)
    return np.round(one_based, 2) - np.array([1.0, 1.0, 0.0, 0.0])


def _normalized(box: npt.NDArray[np.float64], size: tuple[int, int]) -> tuple[float, ...]:
    """Returns a box as tensorflow-datasets stores it: VOC's ymin, xmin, ymax, xmax over the size.

    VOC counts from 1 and includes the last pixel.
    """
    xmin, ymin, xmax, ymax = box
    width, height = size
    return (ymin + 1) / height, (xmin + 1) / width, ymax / height, xmax / width


def _prepared_builder(name: str, data_dir: Path) -> Any:
    if name != "voc" and name not in voc_names():
        raise UserError(
            f"dataset={name!r} is not in tensorflow-datasets, which has {', '.join(voc_names())}."
        )
    with _damage_named(name, data_dir / name):
        builder = tfds.builder(name, data_dir=data_dir)
        is_prepared = builder.is_prepared()
        if is_prepared and not builder.info.splits:
            raise ValueError("dataset_info.json lists no splits.")
        if not is_prepared and Path(builder.data_path).exists():
            raise ValueError("dataset_info.json is missing.")
    if not is_prepared:
        _require_mirror(name)
        try:
            _download_and_prepare(builder)
        except Exception as error:  # tensorflow-datasets, requests and tarfile raise many kinds
            raise UserError(
                f"{name} cannot be downloaded and prepared: {_first_line(error)} Remove "
                f"{data_dir / 'downloads'} and try again, or {_OTHER_WAYS}."
            ) from error
    return builder


@contextlib.contextmanager
def _damage_named(name: str, folder: Path) -> Iterator[None]:
    """Reports a prepared dataset that was cut short, or lost or changed a file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # TensorFlow, JSON and the file system raise many kinds
        raise UserError(
            f"{name} in {folder} is damaged: {_first_line(error)} Remove this folder to download "
            f"it anew, or {_OTHER_WAYS}."
        ) from error


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    # TensorFlow wraps its messages into names of its own operations.
    text = re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", text)
    return f"{text[:200].rstrip('.')}."


def _download_and_prepare(builder: Any) -> None:
    with progress.redirect_stdout(sys.stderr):  # it prints its progress, and stdout is for data
        builder.download_and_prepare()


def _require_mirror(name: str) -> None:
    """Fails within seconds if the network is down; the downloader retries for minutes."""
    module = importlib.import_module(tfds.builder_cls("voc").__module__)
    try:
        urllib.request.urlopen(module._VOC_DATA_URL, timeout=_MIRROR_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the mirror is up, although it lists no folders
    except OSError as error:
        raise UserError(
            f"{name} is not in the data folder, and its mirror cannot be reached ({error}). With "
            "an unpacked VOCdevkit at hand: `kgradcam prepare --devkit VOCdevkit --year "
            f"{name.rpartition('/')[2]}`; or give --dataset a folder in VOC layout, or demo."
        ) from error


def prepare(
    devkit: Path,
    year: str,
    data_dir: Path,
    strict: bool = False,
    quiet: bool = True,
    clip: bool = False,
) -> tuple[Path, dict[str, int], list[tuple[str, str]]]:
    """Writes `voc/2007` or `voc/2012` of tensorflow-datasets from an unpacked devkit.

    It replaces the download: `tfds.load("voc/2007")` then reads the dataset in any process.

    Args:
        devkit: The folder `VOCdevkit`, with `VOC2007/` or `VOC2012/` inside.
        year: `"2007"` or `"2012"`.
        data_dir: The data folder of tensorflow-datasets.
        strict: Stops at the first image that cannot be written, instead of skipping it.
        quiet: Shows no progress on stderr.
        clip: Clips boxes that leave their image, instead of skipping the image.

    Returns:
        The folder written, the number of images of each split, and `(file name, reason)` of each
        skipped image.

    Raises:
        UserError: The devkit or its image lists are missing, the dataset exists already, or
            `strict` and an image cannot be written.
    """
    if f"voc/{year}" not in voc_names():
        years = ", ".join(name.removeprefix("voc/") for name in voc_names())
        raise UserError(f"year={year!r} is not one of {years}.")
    folder = VocFolder(devkit / f"VOC{year}")
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

        @override
        def _split_generators(self, dl_manager: Any) -> Any:
            return {split: self._generate_examples(name) for split, name in splits.items()}

        @override
        def _generate_examples(self, list_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
            # VOC does not publish the annotations of the test images of 2012.
            annotated = list_name != "test" or self.builder_config.has_test_annotations
            examples, unread = read_folder(folder, list_name, annotated, quiet, clip)
            for name, reason in unread:
                skip(name, reason)
            with progress.bar(f"{list_name} images", len(examples), "images", quiet) as advance:
                for example in examples:
                    try:
                        record = _voc_record(example)
                    except UserError as error:
                        skip(example.file_name, str(error))
                    else:
                        yield Path(example.file_name).with_suffix("").as_posix(), record
                    advance(1)

    builder = DevkitBuilder(config=year, data_dir=data_dir)
    if builder.is_prepared():
        raise UserError(f"{builder.data_path} is already there; remove it to prepare it anew.")
    _download_and_prepare(builder)
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    return Path(builder.data_path), counts, skipped


def _voc_record(example: Example) -> dict[str, Any]:
    """Returns an example with the features of `voc` in tensorflow-datasets.

    Raises:
        UserError: The image does not decode, an object has a class that VOC lacks, or a box leaves
            the image.
    """
    file_name, objects = example.file_name, example.objects
    assert example.path is not None
    read_image(example.path)
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
            raise UserError(f"{file_name}: {name!r} is not a class of VOC.")
        bbox = _normalized(box, (example.width, example.height))
        if min(bbox) < 0 or max(bbox) > 1:
            raise UserError(
                f"{file_name}: the box {box.tolist()} leaves the image, which is "
                f"{example.width}x{example.height}. --clip clips such boxes."
            )
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
        "image": example.path,
        "image/filename": file_name,
        "objects": described,
        "labels": sorted({each["label"] for each in described}),
        "labels_no_difficult": sorted(plain),
    }
