"""Ground truth and detections as COCO JSON.

COCO's `[x, y, width, height]` has the same origin as our `xyxy`. Whole pixels, and boxes that were
read from COCO, are written back exactly. Other fractions may change in the last bit, since adding
`xmin` to a rounded width need not give `xmax`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.boxes.overlap import Boxes
from kgradcam.data.coco_schema import (
    BOX,
    ID,
    SCORE,
    SIZE,
    TEXT,
    entries,
    field,
    is_crowd,
    is_difficult,
    numbered,
)
from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import read_json, write_atomically
from kgradcam.runs.tables import Detections, GroundTruth, Image

Annotation = tuple[int, int, Boxes, bool, bool]
"""Image, category, box, and whether the object is difficult and a crowd."""


def write_ground_truth(path: Path, ground_truth: GroundTruth) -> None:
    """Writes COCO ground truth, with VOC's difficult flag as an extra field of each annotation.

    Args:
        path: The file; it is replaced atomically.
        ground_truth: The tables. Categories are numbered from 1, whatever their
            `file_category_ids`.
    """
    rows = zip(
        ground_truth.image_ids,
        ground_truth.category_ids,
        ground_truth.boxes,
        ground_truth.difficult,
        ground_truth.crowd,
        strict=True,
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
        _json_list(map(asdict, images)),
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
            "image_id": int(image_id),
            "category_id": int(category_id),
            "bbox": _xywh(box),
            "score": float(score),
        }
        for table in ([detections] if isinstance(detections, Detections) else detections)
        for image_id, category_id, box, score in zip(
            table.image_ids, table.category_ids, table.boxes, table.scores, strict=True
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
    content = read_json(path)
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(name not in content for name in parts):
        received = ", ".join(map(repr, content)) if isinstance(content, dict) else "a list"
        raise UserError(
            f"{path} is no COCO ground truth: it must be an object with "
            f"{', '.join(map(repr, parts))}. Received: {received[:200] or 'none of them'}."
        )
    with errors_in_file(path, "COCO ground truth"):
        images = list(entries(content["images"], "images"))
        image_ids = [field(*each, "id", ID) for each in images]
        numbers = numbered([place for place, _ in images], image_ids)
        categories = list(entries(content["categories"], "categories"))
        category_ids = [field(*each, "id", ID) for each in categories]
        numbered([place for place, _ in categories], category_ids)
        names = [field(*each, "name", TEXT) for each in categories]
        order = sorted(range(len(names)), key=lambda i: _by_number(category_ids[i]))
        annotations = list(entries(content["annotations"], "annotations"))
        sorted_ids = tuple(category_ids[i] for i in order)
        return GroundTruth(
            images=tuple(
                Image(
                    number,
                    field(*each, "file_name", TEXT),
                    field(*each, "width", SIZE, 0),
                    field(*each, "height", SIZE, 0),
                )
                for number, each in zip(numbers, images, strict=True)
            ),
            categories=tuple(names[i] for i in order),
            **_columns(
                annotations,
                {str(each): number for each, number in zip(image_ids, numbers, strict=True)},
                {str(each): i for i, each in enumerate(sorted_ids, start=1)},
            ),
            difficult=np.array([is_difficult(*each) for each in annotations], dtype=bool),
            crowd=np.array([is_crowd(*each) for each in annotations], dtype=bool),
            file_category_ids=sorted_ids,
            file_image_ids=tuple(image_ids),
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
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} is no list of COCO results: it holds {type(rows).__name__}.")
    with errors_in_file(path, "list of COCO results"):
        results = list(entries(rows, "results"))
        names = [str(field(*each, "image_id", ID)) for each in results]
        positions = {str(each): i for i, each in enumerate(ground_truth.file_category_ids, start=1)}
        return Detections(
            **_columns(results, images_by_name(names, ground_truth), positions),
            scores=np.array([field(*each, "score", SCORE) for each in results], np.float64),
        )


def images_by_name(names: Sequence[str], ground_truth: GroundTruth) -> dict[str, int]:
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
    by_file = {image.file_name: image.id for image in ground_truth.images}
    by_file |= {
        image.file_name.rpartition(".")[0] or image.file_name: image.id
        for image in ground_truth.images
    }
    return by_file if set(names) <= set(by_file) and not set(names) <= set(by_id) else by_id


def _json_list(rows: Iterable[Any]) -> Iterator[str]:
    """Yields a JSON list row by row, so that a long one is never in memory as a whole."""
    yield "["
    for i, row in enumerate(rows):
        yield (", " if i else "") + json.dumps(row, ensure_ascii=False)
    yield "]"


def _number(value: float) -> int | float:
    """Whole numbers as integers, which other readers expect of pixels."""
    return int(value) if value == int(value) else float(value)


def _xywh(box: Boxes) -> list[int | float]:
    xmin, ymin, xmax, ymax = box
    return [_number(value) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]


def _columns(
    rows: Sequence[tuple[str, dict[str, Any]]],
    images: Mapping[str, int],
    categories: Mapping[str, int],
) -> dict[str, Any]:
    """The columns that ground truth and results share.

    Args:
        rows: The entries with their places.
        images: The images by the text of their ids.
        categories: The positions of the categories by the text of their ids.
    """
    xywh = np.array([field(*row, "bbox", BOX) for row in rows], np.float64).reshape(-1, 4)
    return {
        "image_ids": np.array([_known(*row, "image_id", images) for row in rows], np.int64),
        "category_ids": np.array(
            [_known(*row, "category_id", categories) for row in rows], np.int64
        ),
        "boxes": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
    }


def _known(place: str, row: dict[str, Any], name: str, known: Mapping[str, int]) -> int:
    value = field(place, row, name, ID)
    if str(value) not in known:
        raise UserError(
            f"{place}.{name} must be the id of a listed {name.removesuffix('_id')}, such as "
            f"{next(iter(known), 'none, since none is listed')}. Received: {value!r}."
        )
    return known[str(value)]


def _by_number(each: int | str) -> tuple[bool, int, str]:
    """Sorts numbers by their value, before strings."""
    return isinstance(each, str), 0 if isinstance(each, str) else each, str(each)
