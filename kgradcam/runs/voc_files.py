"""Ground truth from a folder in VOC layout, and detections as the VOC devkit writes them.

A file of detections, `comp4_det_test_dog.txt`, has a line for each box of one class: image, score,
xmin, ymin, xmax, ymax. As everywhere in VOC, pixels count from 1 and the last one is included.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kgradcam.data.split_names import WHOLE_FOLDER
from kgradcam.data.voc_folder import VocFolder, read_folder
from kgradcam.errors import UserError, did_you_mean
from kgradcam.files import read_bytes
from kgradcam.runs.coco_files import images_by_name
from kgradcam.runs.tables import Detections, GroundTruth, Image

_MARK = "_det_"


def read_voc_ground_truth(root: Path, split: str | None = None) -> GroundTruth:
    """Reads the annotations of a folder in VOC layout as ground truth.

    Args:
        root: The folder.
        split: A split of it. Default: `"test"`; `"all"` for a folder without that list.

    Returns:
        All images of the split and their objects, with the names of images as `file_image_ids` and
        the names of classes as `file_category_ids`.

    Raises:
        UserError: The folder is not in VOC layout, the split does not exist, or an image or its
            annotation cannot be read.
    """
    folder = VocFolder(root)
    if split is None:
        split = "test" if "test" in folder.split_files else WHOLE_FOLDER
    examples, skipped = read_folder(folder, split)
    if skipped:
        name, reason = skipped[0]
        raise UserError(
            f"{len(skipped)} images of split {split!r} of {root} cannot be ground truth. {name}: "
            f"{reason}"
        )
    objects = [each.objects for each in examples]
    names = [name for each in objects for name in each.names]
    classes = tuple(sorted(set(names)))
    position = {name: i for i, name in enumerate(classes, start=1)}
    counts = [len(each.names) for each in objects]
    return GroundTruth(
        images=tuple(
            Image(i, each.file_name, each.width, each.height)
            for i, each in enumerate(examples, start=1)
        ),
        categories=classes,
        image_ids=np.repeat(np.arange(1, len(examples) + 1), counts),
        category_ids=np.array([position[name] for name in names], np.int64),
        boxes=np.concatenate([np.zeros((0, 4)), *(each.boxes for each in objects)]),
        difficult=np.concatenate([np.zeros(0, bool), *(each.difficult for each in objects)]),
        file_category_ids=classes,
        file_image_ids=tuple(each.file_name.rpartition(".")[0] for each in examples),
    )


def voc_result_files(path: Path) -> list[Path]:
    """Returns the files of detections of a path: itself, or those in a folder.

    Raises:
        UserError: The folder holds none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(path.glob(f"*{_MARK}*.txt"))
    if not found:
        raise UserError(f"{path} holds no detections of VOC, such as comp4_det_test_dog.txt.")
    return found


def split_of(path: Path, root: Path) -> str | None:
    """Returns the split in the name of a file of detections, if the folder `root` has it."""
    split = path.stem.partition(_MARK)[2].partition("_")[0]
    return split if split in VocFolder(root).split_files else None


def read_voc_detections(
    paths: Sequence[Path], ground_truth: GroundTruth
) -> tuple[GroundTruth, Detections]:
    """Reads detections as the VOC devkit and darknet write them.

    Args:
        paths: The files, one for each class.
        ground_truth: The images and classes that they refer to.

    Returns:
        The ground truth of the classes that have a file, and the detections.

    Raises:
        UserError: A file cannot be read, or refers to an unknown class or image; the message has
            the line.
    """
    by_class = {_class_of(path, ground_truth.categories): path for path in paths}
    if len(by_class) < len(paths):
        raise UserError(f"Give one file for each class. Received: {', '.join(map(str, paths))}.")
    truth = _only(ground_truth, tuple(by_class))
    rows, names, places = [], [], []
    for position, path in enumerate(by_class.values(), start=1):
        for number, line in _lines(path):
            name, box = _parse(line, f"{path}, line {number}")
            rows.append([position, *box])
            names.append(name)
            places.append(f"{path}, line {number}")
    images = images_by_name(names, truth)
    for place, name in zip(places, names, strict=True):
        if name not in images:
            raise UserError(
                f"{place}: {name!r} is no image of the ground truth, such as "
                f"{next(iter(images), 'none')}."
            )
    # VOC counts from 1 and includes the last pixel; boxes here count from 0 and exclude it.
    table = np.array(rows, np.float64).reshape(-1, 6)
    return truth, Detections(
        image_ids=np.array([images[name] for name in names], np.int64),
        category_ids=table[:, 0].astype(np.int64),
        boxes=table[:, 2:] - np.array([1.0, 1.0, 0.0, 0.0]),
        scores=table[:, 1],
    )


def _class_of(path: Path, classes: Sequence[str]) -> str:
    """Returns the class in the name of a file: the longest that the name ends in."""
    named = path.stem.partition(_MARK)[2] or path.stem
    found = [each for each in classes if named == each or named.endswith(f"_{each}")]
    if not found:
        wanted = named.rpartition("_")[2]
        raise UserError(
            f"{path}: its name must end in a class of the ground truth, as comp4_det_test_dog.txt."
            f"{did_you_mean(wanted, classes)} Classes: {', '.join(classes) or 'none'}."
        )
    return max(found, key=len)


def _only(truth: GroundTruth, classes: tuple[str, ...]) -> GroundTruth:
    """Returns the ground truth of some classes, in their order."""
    old = [truth.categories.index(name) + 1 for name in classes]
    rows = np.isin(truth.category_ids, old)
    return replace(
        truth,
        categories=classes,
        image_ids=truth.image_ids[rows],
        category_ids=np.array([old.index(each) + 1 for each in truth.category_ids[rows]], np.int64),
        boxes=truth.boxes[rows],
        difficult=truth.difficult[rows],
        crowd=truth.crowd[rows],
        file_category_ids=tuple(truth.file_category_ids[each - 1] for each in old),
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"No file {path}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}.") from error
    return [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _parse(line: str, place: str) -> tuple[str, list[float]]:
    """Returns the image, then the score and the corners as written."""
    # From the right, since names of images may have spaces.
    name, *numbers = line.strip().rsplit(maxsplit=5)
    try:
        score, xmin, ymin, xmax, ymax = map(float, numbers)
        if not all(map(math.isfinite, (score, xmin, ymin, xmax, ymax))):
            raise ValueError
        # Corners are inclusive: xmin - 1 = xmax is an empty box.
        if xmin - 1 > xmax or ymin - 1 > ymax:
            raise ValueError
    except ValueError:
        raise UserError(
            f"{place} must be IMAGE SCORE XMIN YMIN XMAX YMAX. Received: {line.strip()[:80]!r}."
        ) from None
    return name, [score, xmin, ymin, xmax, ymax]
