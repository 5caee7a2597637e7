"""Ground truth and detections as COCO JSON.

COCO's `[x, y, width, height]` has the same origin as our `xyxy`. Whole pixels, and boxes that were
read from COCO, are written back exactly. Other fractions may change in the last bit, since adding
`xmin` to a rounded width need not give `xmax`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.boxes.overlap import Boxes
from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import read_json, write_atomically
from kgradcam.runs.tables import Detections, GroundTruth, Image


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
    categories = ({"id": i, "name": name} for i, name in enumerate(ground_truth.categories, 1))
    pieces = chain(
        ['{"info": {"description": "Written by kgradcam."}, "images": '],
        _json_list(map(asdict, ground_truth.images)),
        [', "annotations": '],
        _json_list(annotations),
        [', "categories": '],
        _json_list(categories),
        ["}\n"],
    )
    write_atomically(path, pieces)


def write_detections(path: Path, detections: Detections) -> None:
    """Writes a list of COCO results.

    Args:
        path: The file; it is replaced atomically.
        detections: The boxes; their categories are numbered as in `write_ground_truth`.
    """
    rows = zip(
        detections.image_ids,
        detections.category_ids,
        detections.boxes,
        detections.scores,
        strict=True,
    )
    results = (
        {
            "image_id": int(image_id),
            "category_id": int(category_id),
            "bbox": _xywh(box),
            "score": float(score),
        }
        for image_id, category_id, box, score in rows
    )
    write_atomically(path, chain(_json_list(results), ["\n"]))


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads COCO ground truth, of kgradcam or of any other writer.

    An annotation is a crowd if its `"iscrowd"` is 1. It is difficult if its `"difficult"` is 1;
    where that field is missing, COCO's `"ignore"` or `"iscrowd"` counts instead.

    Raises:
        UserError: The file is missing, or is not COCO ground truth.
    """
    content = read_json(path)
    with errors_in_file(path, "COCO ground truth"):
        categories = sorted(content["categories"], key=lambda category: category["id"])
        ids = tuple(int(category["id"]) for category in categories)
        images = tuple(
            Image(
                int(image["id"]),
                str(image["file_name"]),
                int(image.get("width") or 0),
                int(image.get("height") or 0),
            )
            for image in content["images"]
        )
        rows = content["annotations"]
        return GroundTruth(
            images=images,
            categories=tuple(str(category["name"]) for category in categories),
            **_columns(rows, {image.id for image in images}, ids),
            difficult=np.array([_is_difficult(row) for row in rows], dtype=bool),
            crowd=np.array([_flag(row, "iscrowd") for row in rows], dtype=bool),
            file_category_ids=ids,
        )


def read_detections(path: Path, ground_truth: GroundTruth) -> Detections:
    """Reads COCO results, of kgradcam or of any other writer.

    Args:
        path: A JSON list of results.
        ground_truth: The images and categories that they refer to.

    Raises:
        UserError: The file is missing, is not a list of COCO results, or refers to an unknown
            image or category.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} is no list of COCO results: it holds {type(rows).__name__}.")
    with errors_in_file(path, "list of COCO results"):
        images = {image.id for image in ground_truth.images}
        return Detections(
            **_columns(rows, images, ground_truth.file_category_ids),
            scores=np.array([row["score"] for row in rows], np.float64),
        )


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
    rows: Sequence[Any], image_ids: set[int], category_ids: Sequence[int]
) -> dict[str, Any]:
    """The columns that ground truth and results share."""
    position = {category_id: i for i, category_id in enumerate(category_ids, start=1)}
    for row in rows:
        if row["image_id"] not in image_ids:
            raise UserError(f"A box refers to the image {row['image_id']!r}, which is not listed.")
        if row["category_id"] not in position:
            raise UserError(
                f"A box refers to the category {row['category_id']!r}, which is not listed."
            )
    xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return {
        "image_ids": np.array([row["image_id"] for row in rows], np.int64),
        "category_ids": np.array([position[row["category_id"]] for row in rows], np.int64),
        "boxes": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
    }


def _is_difficult(row: Any) -> bool:
    if "difficult" in row:
        return _flag(row, "difficult")
    return _flag(row, "ignore") or _flag(row, "iscrowd")


def _flag(row: Any, name: str) -> bool:
    """A flag of an annotation; some writers put numbers into strings."""
    value = row.get(name, 0)
    if str(value).lower() in ("1", "1.0", "true"):
        return True
    if value is None or str(value).lower() in ("", "0", "0.0", "false"):
        return False
    raise UserError(f"{name} of an annotation must be 0 or 1. Received: {value!r}.")
