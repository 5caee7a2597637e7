"""Ground truth and detections: the two tables that boxes become, and their COCO JSON.

Boxes are `xyxy` in pixels everywhere inside kgradcam: `[xmin, ymin, xmax, ymax]`, counted from 0,
half-open, so that `xmax - xmin` is the width and a box around the whole image is
`[0, 0, width, height]`. VOC's own integers count from 1 and include the last pixel: subtract 1 from
`xmin` and `ymin` to get ours. COCO's `[x, y, width, height]` shares our origin: whole pixels, and
whatever was read from COCO, survive the way there and back exactly; of other fractions the last bit
may not, since no float need exist that added to `xmin` gives `xmax`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UsageError, UserError
from kgradcam.files import write_atomically

Ids = npt.NDArray[np.int64]
Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its number.

    Attributes:
        id: The number that boxes refer to.
        file_name: Its file name.
        width: Width in pixels; 0 if unknown.
        height: Height in pixels; 0 if unknown.
    """

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class GroundTruth:
    """The annotated boxes of some images.

    Attributes:
        images: The images, those without a box as well.
        categories: The class names; a category's id is its place here, from 1.
        image_ids: int64 `[boxes]`.
        category_ids: int64 `[boxes]`.
        boxes: float64 `[boxes, 4]`, xyxy in pixels from 0, half-open.
        difficult: bool `[boxes]`.
        file_category_ids: The ids of the categories in the COCO file that was read, which need not
            count from 1; detections of that file speak in them.
    """

    images: tuple[Image, ...]
    categories: tuple[str, ...]
    image_ids: Ids
    category_ids: Ids
    boxes: Boxes
    difficult: npt.NDArray[np.bool_]
    file_category_ids: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_table(self.image_ids, self.category_ids, self.boxes, difficult=self.difficult)
        if not self.file_category_ids:
            object.__setattr__(self, "file_category_ids", tuple(range(1, len(self.categories) + 1)))
        image_ids = [image.id for image in self.images]
        _check_unique("image", image_ids)
        _check_unique("category", self.file_category_ids)
        unknown = self.image_ids[~np.isin(self.image_ids, np.array(image_ids, np.int64))]
        if len(unknown):
            raise UserError(f"image_ids holds {unknown[0]}, which none of the images has.")
        count = len(self.categories)
        unknown = self.category_ids[(self.category_ids < 1) | (self.category_ids > count)]
        if len(unknown):
            raise UserError(f"category_ids must be 1 to {count}. Received: {unknown[0]}.")


@dataclass(frozen=True)
class Detections:
    """Predicted boxes.

    Attributes:
        image_ids: int64 `[boxes]`.
        category_ids: int64 `[boxes]`.
        boxes: float64 `[boxes, 4]`, xyxy in pixels from 0, half-open.
        scores: float64 `[boxes]`, the confidences. Ties keep the order of the table.
    """

    image_ids: Ids
    category_ids: Ids
    boxes: Boxes
    scores: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        _check_table(self.image_ids, self.category_ids, self.boxes, scores=self.scores)
        if np.isnan(self.scores).any():
            raise UserError("scores must be numbers: a NaN cannot be ranked.")

    def select(self, chosen: npt.NDArray[Any]) -> "Detections":
        """Returns some of the boxes, by index or mask."""
        return Detections(
            self.image_ids[chosen],
            self.category_ids[chosen],
            self.boxes[chosen],
            self.scores[chosen],
        )


def _check_table(image_ids: Ids, category_ids: Ids, boxes: Boxes, **columns: Any) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(f"boxes must be [boxes, 4], xyxy. Received: {boxes.shape}.")
    if not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise UserError("boxes must be finite, with xmin <= xmax and ymin <= ymax.")
    for name, column in {"image_ids": image_ids, "category_ids": category_ids, **columns}.items():
        if column.shape != (len(boxes),):
            raise UserError(
                f"{name} must have one entry for each of {len(boxes)} boxes. "
                f"Received: {column.shape}."
            )


def _check_unique(what: str, ids: Iterable[int]) -> None:
    repeated = [each for each, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(f"Every {what} needs an id of its own. Received twice: {repeated[0]}.")


def keep_rows(detections: Detections, rows: str) -> Detections:
    """Keeps all boxes of each image and class, or one.

    Args:
        detections: Any detections.
        rows: `"all"`; `"last"`, the last one in the table; `"largest"`, the one with the largest
            area; or `"top"`, the most confident; the first of equals.

    Raises:
        UsageError: `rows` is something else.
    """
    if rows == "all":
        return detections
    if rows == "last":
        best_first = np.arange(len(detections.boxes))[::-1]
    elif rows == "largest":
        areas = (detections.boxes[:, 2:] - detections.boxes[:, :2]).prod(axis=1)
        best_first = np.argsort(-areas, kind="stable")
    elif rows == "top":
        best_first = np.argsort(-detections.scores, kind="stable")
    else:
        raise UsageError(f"rows must be all, last, largest or top. Received: {rows!r}.")
    groups = np.stack([detections.image_ids, detections.category_ids], axis=1)
    _, firsts = np.unique(groups[best_first], axis=0, return_index=True)
    return detections.select(np.sort(best_first[firsts]))


def join(tables: Sequence[Detections]) -> Detections:
    """Joins detections, ordered by image and class, and else in the order of the tables."""
    images, categories, boxes, scores = (
        [getattr(table, name) for table in tables]
        for name in ("image_ids", "category_ids", "boxes", "scores")
    )
    joined = Detections(
        np.concatenate([np.zeros(0, np.int64), *images]),
        np.concatenate([np.zeros(0, np.int64), *categories]),
        np.concatenate([np.zeros((0, 4)), *boxes]),
        np.concatenate([np.zeros(0), *scores]),
    )
    return joined.select(np.lexsort((joined.category_ids, joined.image_ids)))


def write_ground_truth(path: Path, ground_truth: GroundTruth) -> None:
    """Writes COCO JSON, with VOC's difficult flag as an extra field of each annotation.

    Categories are numbered from 1 in their order, whatever the ids of a file they came from.
    """
    annotations = (
        {
            "id": i,
            "image_id": int(image_id),
            "category_id": int(category_id),
            "bbox": _xywh(box),
            "area": _number((box[2] - box[0]) * (box[3] - box[1])),
            "iscrowd": 0,
            "difficult": int(difficult),
        }
        for i, (image_id, category_id, box, difficult) in enumerate(
            zip(
                ground_truth.image_ids,
                ground_truth.category_ids,
                ground_truth.boxes,
                ground_truth.difficult,
                strict=True,
            ),
            start=1,
        )
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
    """Writes a list of COCO results, their categories numbered as `write_ground_truth` does."""
    rows = (
        {
            "image_id": int(image_id),
            "category_id": int(category_id),
            "bbox": _xywh(box),
            "score": float(score),
        }
        for image_id, category_id, box, score in zip(
            detections.image_ids,
            detections.category_ids,
            detections.boxes,
            detections.scores,
            strict=True,
        )
    )
    write_atomically(path, chain(_json_list(rows), ["\n"]))


def _json_list(rows: Iterable[Any]) -> Iterator[str]:
    """A list of rows as JSON, piece by piece: a long one takes no memory."""
    yield "["
    for i, row in enumerate(rows):
        yield (", " if i else "") + json.dumps(row, ensure_ascii=False)
    yield "]"


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else float(value)


def _xywh(box: Boxes) -> list[int | float]:
    xmin, ymin, xmax, ymax = box
    return [_number(value) for value in (xmin, ymin, xmax - xmin, ymax - ymin)]


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads anyone's COCO ground truth.

    Difficult is what says `"difficult": 1`; where that field is missing, what COCO's `"ignore"` or
    `"iscrowd"` marks with 1.

    Raises:
        UserError: The file is missing, or is no COCO ground truth.
    """
    content = _read_json(path)
    with errors_name(path, "COCO ground truth"):
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
            file_category_ids=ids,
        )


def read_detections(path: Path, ground_truth: GroundTruth) -> Detections:
    """Reads anyone's COCO results.

    Args:
        path: A JSON list of results.
        ground_truth: What they refer to.

    Raises:
        UserError: The file is missing, no list of COCO results, or names an unknown image or
            category.
    """
    rows = _read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} is no list of COCO results: it holds {type(rows).__name__}.")
    with errors_name(path, "list of COCO results"):
        images = {image.id for image in ground_truth.images}
        return Detections(
            **_columns(rows, images, ground_truth.file_category_ids),
            scores=np.array([row["score"] for row in rows], np.float64),
        )


@contextmanager
def errors_name(path: Path, expected: str) -> Iterator[None]:
    """Makes what goes wrong with a file's content a `UserError` that names the file.

    Args:
        path: The file.
        expected: What its content should be, such as `"COCO ground truth"`.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is no {expected}: {error!r}") from error


def _columns(
    rows: Sequence[Any], image_ids: set[int], category_ids: Sequence[int]
) -> dict[str, Any]:
    """What ground truth and results have in common, as arrays."""
    place = {category_id: i for i, category_id in enumerate(category_ids, start=1)}
    for row in rows:
        if row["image_id"] not in image_ids:
            raise UserError(f"A box refers to the image {row['image_id']!r}, which is not there.")
        if row["category_id"] not in place:
            raise UserError(
                f"A box refers to the category {row['category_id']!r}, which is not there."
            )
    xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return {
        "image_ids": np.array([row["image_id"] for row in rows], np.int64),
        "category_ids": np.array([place[row["category_id"]] for row in rows], np.int64),
        "boxes": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
    }


def _is_difficult(row: Any) -> bool:
    return bool(row.get("difficult", row.get("ignore") or row.get("iscrowd")))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No file {path}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON: {error}") from error
