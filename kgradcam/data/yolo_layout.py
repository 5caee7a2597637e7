"""YOLO: `data.yaml`, `images/` and `labels/`, as Ultralytics and many labelling tools write them.

A label file has a line for each object: the number of the class, then the centre, width and height
of its box in fractions of the image; or the corners of a polygon, whose box counts. A picture
without a label file has no object. Without a data.yaml, `classes.txt` names the classes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kgradcam.data.examples import NO_OBJECTS, Objects, boxed
from kgradcam.data.plain_layouts import image_names
from kgradcam.data.reading import Entry, Place, Reading, read_entries
from kgradcam.data.split_names import WHOLE_FOLDER
from kgradcam.data.voc_folder import read_lines
from kgradcam.errors import UserError, did_you_mean
from kgradcam.files import read_bounded

_SUFFIXES = (".yaml", ".yml")
_SPLITS = ("train", "val", "valid", "validation", "test")


def yolo_splits(root: Path) -> dict[str, list[Path]]:
    """Returns the folders or lists of images of each split; empty for another layout.

    Raises:
        UserError: The data.yaml is no such file.
    """
    path = _yaml_file(root)
    if path is None:
        is_yolo = (root / "images").is_dir() and (root / "labels").is_dir()
        return {WHOLE_FOLDER: [root / "images"]} if is_yolo else {}
    content = _read_yaml(path)
    base = content.get("path")
    splits = {
        split: [_locate(path.parent, base, each) for each in _as_list(content[split])]
        for split in _SPLITS
        if content.get(split)
    }
    if not splits:
        splits = {WHOLE_FOLDER: [_locate(path.parent, base, "images")]}
    places = dict.fromkeys(place for places in splits.values() for place in places)
    return splits | {WHOLE_FOLDER: list(places)}


def read_yolo(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    """Reads a split, sorted by path within each of its folders."""
    names = _class_names(place.root)
    found = []
    for source in yolo_splits(place.root)[split]:
        if source.is_dir():
            paths = [(name, source / name) for name in image_names(source)]
        elif source.is_file():
            paths = [(line, source.parent / line) for line in read_lines(source)]
        else:
            raise UserError(f"{place.root} names {source} for split {split!r}, which is missing.")
        found += [Entry(name, path, _Labels(path, names, clip)) for name, path in paths]
    return Reading(read_entries(found, len(found), quiet), names)


class _Labels:
    """Reads the label file of an image, when its size is known."""

    def __init__(self, image: Path, names: Sequence[str], clip: bool) -> None:
        self._image, self._names, self._clip = image, names, clip

    def __call__(self, size: tuple[int, int]) -> Objects:
        path = _label_file(self._image)
        try:
            lines = read_lines(path)
        except FileNotFoundError:
            return NO_OBJECTS
        names, boxes = [], []
        for number, line in enumerate(lines, start=1):
            try:
                index, box = _parse(line)
                if not 0 <= index < len(self._names):
                    raise UserError(f"class {index} is not one of 0 to {len(self._names) - 1}.")
            except UserError as error:
                raise UserError(f"{path.name}, object {number}: {error}") from None
            names.append(self._names[index])
            boxes.append([each * size[i % 2] for i, each in enumerate(box)])
        return boxed(names, boxes, size, self._clip)


def _parse(line: str) -> tuple[int, list[float]]:
    """Returns the class, and xyxy in fractions of the image."""
    try:
        index, *numbers = [float(each) for each in line.split()]
        if index != int(index):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(f"it must be CLASS X Y WIDTH HEIGHT. Received: {line[:60]!r}.") from None
    if len(numbers) in (4, 5):  # 5 with a confidence
        x, y, width, height = numbers[:4]
        if width < 0 or height < 0 or max(map(abs, numbers[:4])) > 10:
            raise UserError(
                f"its box must be in fractions of the image, width and height from 0. "
                f"Received: {line[:60]!r}."
            )
        return int(index), [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if len(numbers) >= 6 and len(numbers) % 2 == 0 and all(map(math.isfinite, numbers)):
        xs, ys = numbers[::2], numbers[1::2]
        return int(index), [min(xs), min(ys), max(xs), max(ys)]
    raise UserError(f"it must be CLASS X Y WIDTH HEIGHT. Received: {line[:60]!r}.")


def _label_file(image: Path) -> Path:
    """Returns `labels/a.txt` for `images/a.jpg`: the last folder `images` becomes `labels`."""
    folder = next((each for each in image.parents if each.name == "images"), None)
    if folder is not None:
        image = folder.parent / "labels" / image.relative_to(folder)
    return image.with_suffix(".txt")


def _class_names(root: Path) -> tuple[str, ...]:
    path = _yaml_file(root)
    if path is None:
        lists = [root / "classes.txt", root / "labels" / "classes.txt"]
        for each in lists:
            if each.is_file():
                return tuple(read_lines(each))
        raise UserError(
            f"{root} needs data.yaml or classes.txt with the names of its classes; its labels "
            "have only their numbers."
        )
    names = _read_yaml(path).get("names")
    if isinstance(names, dict) and sorted(names) == [*range(len(names))]:
        names = [names[i] for i in range(len(names))]
    if (
        not isinstance(names, list)
        or not names
        or not all(str(each or "").strip() for each in names)
    ):
        raise UserError(
            f"{path} must hold 'names', a list, or a table from the numbers 0, 1, ... to names. "
            f"Received: {str(names)[:80]}."
        )
    return tuple(str(each).strip() for each in names)


def _yaml_file(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in _SUFFIXES else None
    found = [root / f"{name}{suffix}" for name in ("data", "dataset") for suffix in _SUFFIXES]
    return next((path for path in found if path.is_file()), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_bounded(path, 2**24))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a table with 'names', 'train' and 'val'.")
    if "names" not in content:
        raise UserError(f"{path} has no 'names'.{did_you_mean('names', map(str, content))}")
    return content


def _as_list(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list) else [value])]


def _locate(folder: Path, base: Any, name: str) -> Path:
    """Returns a folder or list of data.yaml: below `path`, or beside the file after a move."""
    inside = Path(name.replace("\\", "/"))
    above = [part for part in inside.parts if part != ".."]  # Roboflow writes ../train/images
    candidates = [folder / str(base or "") / inside, folder / inside, folder.joinpath(*above)]
    return next((path for path in candidates if path.exists()), candidates[0])
