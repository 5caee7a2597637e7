"""Writes `voc/2007` and `voc/2012` of tensorflow-datasets from a devkit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from typing_extensions import override

from kgradcam import progress
from kgradcam.data import voc
from kgradcam.data.examples import Example
from kgradcam.data.images import read_image
from kgradcam.data.tfds_records import download_and_prepare, voc_names
from kgradcam.data.voc_folder import VocFolder, read_folder
from kgradcam.errors import UserError


def normalized(box: npt.NDArray[np.float64], size: tuple[int, int]) -> tuple[float, ...]:
    """Returns a box as tensorflow-datasets stores it: VOC's ymin, xmin, ymax, xmax over the size.

    VOC counts from 1 and includes the last pixel.
    """
    xmin, ymin, xmax, ymax = box
    width, height = size
    return (ymin + 1) / height, (xmin + 1) / width, ymax / height, xmax / width


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
    download_and_prepare(builder)
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
        bbox = normalized(box, (example.width, example.height))
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
