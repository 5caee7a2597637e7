"""Ground truth and detections as COCO JSON.

COCO's `[x, y, width, height]` has the same origin as our `xyxy`. Whole pixels, and boxes that were
read from COCO, are written back exactly. Other fractions may change in the last bit, since adding
`xmin` to a rounded width need not give `xmax`.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.data.coco_schema import numbered
from kgradcam.data.json_lists import ROWS, json_lists
from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import write_atomically
from kgradcam.runs.coco_columns import BoxColumns, Rows, joined
from kgradcam.runs.tables import Detections, GroundTruth, Image

_Box = Sequence[float] | npt.NDArray[np.float64]
Annotation = tuple[int, int, _Box, bool, bool]
"""Image, category, box, and whether the object is difficult and a crowd."""

_encode = json.JSONEncoder(ensure_ascii=False).encode


def write_ground_truth(path: Path, ground_truth: GroundTruth) -> None:
    """Writes COCO ground truth, with VOC's difficult flag as an extra field of each annotation.

    Args:
        path: The file; it is replaced atomically.
        ground_truth: The tables. Categories are numbered from 1, whatever their
            `file_category_ids`.
    """
    rows = _rows(
        ground_truth.image_ids,
        ground_truth.category_ids,
        ground_truth.boxes,
        ground_truth.difficult,
        ground_truth.crowd,
    )
    write_annotations(path, ground_truth.images, rows, ground_truth.categories)


def write_annotations(
    path: Path, images: Iterable[Image], rows: Iterable[Annotation], categories: Sequence[str]
) -> None:
    """Writes COCO ground truth that need not fit into memory; see `write_ground_truth`.

    Args:
        path: The file; it is replaced atomically.
        images: The images.
        rows: Their annotated objects.
        categories: The class names.
    """
    annotations = (
        {
            "id": i,
            "image_id": int(image_id),
            "category_id": int(category_id),
            "bbox": _xywh(box),
            "area": _number((box[2] - box[0]) * (box[3] - box[1])),
            "iscrowd": int(crowd),
            "difficult": int(difficult),
        }
        for i, (image_id, category_id, box, difficult, crowd) in enumerate(rows, start=1)
    )
    pieces = chain(
        ['{"info": {"description": "Written by kgradcam."}, "images": '],
        _json_list(map(_image, images)),
        [', "annotations": '],
        _json_list(annotations),
        [', "categories": '],
        _json_list({"id": i, "name": name} for i, name in enumerate(categories, 1)),
        ["}\n"],
    )
    write_atomically(path, pieces)


def write_detections(path: Path, detections: Detections | Iterable[Detections]) -> None:
    """Writes a list of COCO results.

    Args:
        path: The file; it is replaced atomically.
        detections: The boxes, in one table or several; their categories are numbered as in
            `write_ground_truth`.
    """
    results = (
        {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": _xywh(box),
            "score": score,
        }
        for table in ([detections] if isinstance(detections, Detections) else detections)
        for image_id, category_id, box, score in _rows(
            table.image_ids, table.category_ids, table.boxes, table.scores
        )
    )
    write_atomically(path, chain(_json_list(results), ["\n"]))


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads COCO ground truth, of kgradcam or of any other writer.

    An annotation is a crowd if its `"iscrowd"` is 1. It is difficult if its `"difficult"` is 1;
    where that field is missing, COCO's `"ignore"` or `"iscrowd"` counts instead. Image ids
    that are not all numbers are replaced by 1, 2, ...; see `GroundTruth.file_image_ids`.

    Raises:
        UserError: The file is missing, or is not COCO ground truth; the message names the entry.
    """
    boxes, difficult, crowd = BoxColumns("annotations"), [], []
    categories: list[Any] = []
    ids: list[int | str] = []
    images: list[tuple[str, int, int]] = []
    names: dict[str | None, None] = {}
    for name, rows in json_lists(path):
        names.setdefault(name)
        with errors_in_file(path, "COCO ground truth"):
            if name == "images":
                part = Rows("images", len(ids), rows)
                ids += part.ids("id")
                sizes = part.sizes("width"), part.sizes("height")
                images += zip(part.texts("file_name"), *sizes, strict=True)
            elif name == "annotations":
                part = boxes.add(rows)
                difficult.append(part.difficult())
                crowd.append(part.crowd())
            elif name == "categories":
                categories += Rows("categories", len(categories), rows).rows
            elif name is None:
                break
    if not names.keys() >= {"images", "annotations", "categories"}:
        received = "a list" if None in names else ", ".join(map(repr, names))
        raise UserError(
            f"{path} is no COCO ground truth: it must be an object with 'images', 'annotations', "
            f"'categories'. Received: {received[:200] or 'none of them'}."
        )
    with errors_in_file(path, "COCO ground truth"):
        numbers = numbered("images", ids)
        found = Rows("categories", 0, categories)
        category_ids, category_names = found.ids("id"), found.texts("name")
        numbered("categories", category_ids)
        order = sorted(range(len(category_ids)), key=lambda i: _by_number(category_ids[i]))
        sorted_ids = tuple(category_ids[i] for i in order)
        return GroundTruth(
            images=tuple(
                Image(number, *each) for number, each in zip(numbers, images, strict=True)
            ),
            categories=tuple(category_names[i] for i in order),
            **boxes.columns(
                {str(each): number for each, number in zip(ids, numbers, strict=True)},
                {str(each): i for i, each in enumerate(sorted_ids, start=1)},
            ),
            difficult=joined(difficult, bool),
            crowd=joined(crowd, bool),
            file_category_ids=sorted_ids,
            file_image_ids=tuple(ids),
        )


def read_detections(path: Path, ground_truth: GroundTruth) -> Detections:
    """Reads COCO results, of kgradcam or of any other writer.

    Args:
        path: A JSON list of results.
        ground_truth: The images and categories that they refer to. If the results name images by
            their file names, with or without suffix, these count instead of the ids.

    Raises:
        UserError: The file is missing, is not a list of COCO results, or refers to an unknown
            image or category; the message names the entry.
    """
    boxes, scores = BoxColumns("results"), []
    no_list = UserError(f"{path} is no list of COCO results: it must be a JSON list.")
    for name, rows in json_lists(path):
        if name is not None or not isinstance(rows, list):
            raise no_list
        with errors_in_file(path, "list of COCO results"):
            scores.append(boxes.add(rows).scores())
    if not scores:  # an empty object
        raise no_list
    with errors_in_file(path, "list of COCO results"):
        names = [str(each) for each in boxes.image_ids]
        positions = {str(each): i for i, each in enumerate(ground_truth.file_category_ids, start=1)}
        return Detections(
            **boxes.columns(images_by_name(names, ground_truth), positions),
            scores=joined(scores, np.float64),
        )


def images_by_name(names: Collection[str], ground_truth: GroundTruth) -> dict[str, int]:
    """Returns the images that results refer to: by id, or else all of them by file name.

    Args:
        names: The names of images in all results of a file.
        ground_truth: The images.

    Returns:
        The id of each image in `ground_truth` by its name for these results.
    """
    by_id = {
        str(each): image.id
        for each, image in zip(ground_truth.file_image_ids, ground_truth.images, strict=True)
    }
    names = set(names)
    if names <= by_id.keys():
        return by_id
    by_file = {image.file_name: image.id for image in ground_truth.images}
    by_file |= {
        image.file_name.rpartition(".")[0] or image.file_name: image.id
        for image in ground_truth.images
    }
    return by_file if names <= by_file.keys() else by_id


def _image(each: Image) -> dict[str, Any]:
    size = {"width": each.width, "height": each.height}
    return {"id": each.id, "file_name": each.file_name, **size}


def _json_list(rows: Iterable[Any]) -> Iterator[str]:
    """Yields a JSON list row by row, so that a long one is never in memory as a whole."""
    yield "["
    for i, row in enumerate(rows):
        yield (", " if i else "") + _encode(row)
    yield "]"


def _rows(*columns: npt.NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of a table as Python's own numbers, some at a time."""
    for start in range(0, len(columns[0]), ROWS):
        yield from zip(*(each[start : start + ROWS].tolist() for each in columns), strict=True)


def _number(value: float) -> int | float:
    """Whole numbers as integers, which other readers expect of pixels."""
    return int(value) if value == int(value) else float(value)


def _xywh(box: _Box) -> list[int | float]:
    xmin, ymin, xmax, ymax = box
    return [_number(value) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]


def _by_number(each: int | str) -> tuple[bool, int, str]:
    """Sorts numbers by their value, before strings."""
    return isinstance(each, str), 0 if isinstance(each, str) else each, str(each)
