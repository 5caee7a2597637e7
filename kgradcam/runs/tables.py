"""The tables of a run: images, annotated boxes and predicted boxes.

Boxes are `xyxy` in pixels everywhere in kgradcam: `[xmin, ymin, xmax, ymax]`, counted from 0,
half-open. So `xmax - xmin` is the width, and a box around the whole image is
`[0, 0, width, height]`. VOC's integers count from 1 and include the last pixel: subtract 1 from
`xmin` and `ymin` to convert them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes
from kgradcam.errors import UserError, require_known

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Image:
    """An image, identified by a number.

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

    @property
    def size(self) -> tuple[int, int]:
        """`(width, height)` in pixels."""
        return self.width, self.height


@dataclass(frozen=True)
class GroundTruth:
    """The annotated boxes of some images.

    Attributes:
        images: The images, including those without a box.
        categories: The class names. The id of a category is its position, from 1.
        image_ids: int64 `[boxes]`.
        category_ids: int64 `[boxes]`.
        boxes: float64 `[boxes, 4]`, xyxy in pixels from 0, half-open.
        difficult: bool `[boxes]`.
        crowd: bool `[boxes]`: boxes around a group of objects, as COCO's `iscrowd`. COCO's measures
            ignore detections inside them; other measures look at `difficult` only. Default: none.
        file_category_ids: The category ids in the COCO file that was read, in the order of
            `categories`. They need not count from 1; COCO results for that file use them.
        file_image_ids: The image ids in that file, in the order of `images`.

    Raises:
        UserError: Columns do not fit together, ids are repeated or unknown, or a box is not finite
            or has a negative side.
    """

    images: tuple[Image, ...]
    categories: tuple[str, ...]
    image_ids: Ids
    category_ids: Ids
    boxes: Boxes
    difficult: npt.NDArray[np.bool_]
    file_category_ids: tuple[int | str, ...] = field(default=())
    file_image_ids: tuple[int | str, ...] = field(default=())
    crowd: npt.NDArray[np.bool_] = field(default=cast(Any, None))

    def __post_init__(self) -> None:
        # Defaults that depend on other fields; a frozen dataclass has no other way to set them.
        if self.crowd is None:
            object.__setattr__(self, "crowd", np.zeros(len(self.boxes), bool))
        _check_columns(
            self.image_ids,
            self.category_ids,
            self.boxes,
            difficult=self.difficult,
            crowd=self.crowd,
        )
        if not self.file_category_ids:
            object.__setattr__(self, "file_category_ids", tuple(range(1, len(self.categories) + 1)))
        image_ids = [image.id for image in self.images]
        if not self.file_image_ids:
            object.__setattr__(self, "file_image_ids", tuple(image_ids))
        _check_unique("image", image_ids)
        _check_unique("category", self.file_category_ids)
        unknown = self.image_ids[~np.isin(self.image_ids, np.array(image_ids, np.int64))]
        if len(unknown):
            raise UserError(f"image_ids holds {unknown[0]}, which is the id of no image.")
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

    Raises:
        UserError: Columns do not fit together, a box is not finite or has a negative side, or a
            score is NaN.
    """

    image_ids: Ids
    category_ids: Ids
    boxes: Boxes
    scores: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        _check_columns(self.image_ids, self.category_ids, self.boxes, scores=self.scores)
        if np.isnan(self.scores).any():
            raise UserError("scores must be numbers; a NaN cannot be ranked.")

    def select(self, rows: npt.NDArray[Any]) -> "Detections":
        """Selects rows of the table, by index or by mask."""
        return Detections(
            self.image_ids[rows], self.category_ids[rows], self.boxes[rows], self.scores[rows]
        )


def keep_rows(detections: Detections, rows: str) -> Detections:
    """Keeps all boxes of each image and class, or only one.

    Args:
        detections: Any detections.
        rows: `"all"`; `"last"`, the last row; `"largest"`, the box with the largest area; or
            `"top"`, the box with the highest score. Of equal boxes the first row is kept.

    Returns:
        The rows to keep, in their order.

    Raises:
        UsageError: `rows` is something else.
    """
    require_known("rows", rows, ("all", "last", "largest", "top"))
    if rows == "all":
        return detections
    if rows == "last":
        best_first = np.arange(len(detections.boxes))[::-1]
    elif rows == "largest":
        areas = (detections.boxes[:, 2:] - detections.boxes[:, :2]).prod(axis=1)
        best_first = np.argsort(-areas, kind="stable")
    else:
        best_first = np.argsort(-detections.scores, kind="stable")
    # Of equal groups np.unique returns the first, which is the best one.
    groups = np.stack([detections.image_ids, detections.category_ids], axis=1)
    _, firsts = np.unique(groups[best_first], axis=0, return_index=True)
    return detections.select(np.sort(best_first[firsts]))


def sizes_by_id(images: Iterable[Image]) -> dict[int, tuple[int, int]]:
    """Returns the `(width, height)` in pixels of each image by its id."""
    return {image.id: image.size for image in images}


class RowsByClass:
    """The rows of a table by image and class; it takes 32 bytes a row.

    Args:
        table: Boxes in any order.
    """

    def __init__(self, table: GroundTruth | Detections) -> None:
        self._images, numbers = np.unique(table.image_ids, return_inverse=True)
        self._classes = int(table.category_ids.max(initial=0)) + 1
        # One sorted key for image and class: a dictionary of arrays takes several times the memory.
        keys = numbers * self._classes + table.category_ids
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]

    def __call__(self, image_id: int, category_id: int) -> npt.NDArray[np.int64]:
        """Returns the rows of an image and class, in the order of the table."""
        number = int(np.searchsorted(self._images, image_id))
        if number == len(self._images) or self._images[number] != image_id:
            return self._rows[:0]
        if category_id >= self._classes:
            return self._rows[:0]
        key = number * self._classes + category_id
        start, end = np.searchsorted(self._keys, (key, key + 1))
        return self._rows[start:end]


def join(tables: Sequence[Detections]) -> Detections:
    """Joins tables; rows are ordered by image and class, then by table and position."""
    image_ids, category_ids, boxes, scores = (
        [getattr(table, name) for table in tables]
        for name in ("image_ids", "category_ids", "boxes", "scores")
    )
    joined = Detections(
        np.concatenate([np.zeros(0, np.int64), *image_ids]),
        np.concatenate([np.zeros(0, np.int64), *category_ids]),
        np.concatenate([np.zeros((0, 4)), *boxes]),
        np.concatenate([np.zeros(0), *scores]),
    )
    # The sort is stable, so the rows of an image and class keep their order.
    return joined.select(np.lexsort((joined.category_ids, joined.image_ids)))


def _check_columns(image_ids: Ids, category_ids: Ids, boxes: Boxes, **columns: Any) -> None:
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


def _check_unique(kind: str, ids: Iterable[int | str]) -> None:
    repeated = [each for each, times in Counter(ids).items() if times > 1]
    if repeated:
        raise UserError(f"Every {kind} needs its own id. Received twice: {repeated[0]}.")
