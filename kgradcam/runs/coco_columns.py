"""Columns of COCO's rows, gathered some rows at a time.

Rows of plain numbers are checked and converted together. Rows with any other value go through
`coco_schema.field` one by one, which converts the value or names it in an error.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.data.coco_schema import (
    BOX,
    ID,
    MOST_PIXELS,
    SCORE,
    SIZE,
    TEXT,
    Kind,
    entries,
    field,
    is_crowd,
    is_difficult,
)
from kgradcam.errors import UserError

Row = dict[str, Any]


class Rows:
    """Some rows of a list.

    Args:
        name: The name of the list.
        start: The position of the first of them.
        rows: Parsed JSON, that should be a list of objects.

    Raises:
        UserError: It is no list, or a row is no object.
    """

    def __init__(self, name: str, start: int, rows: Any) -> None:
        self._name, self._start = name, start
        self.rows: list[Row] = rows
        if not isinstance(rows, list) or not _types(rows) <= {dict}:
            self.rows = [row for _, row in entries(rows, name, start)]

    def ids(self, name: str) -> list[int | str]:
        """Returns the ids in a field."""
        return self._plain(name, ID, lambda values: _types(values) <= {int})

    def texts(self, name: str) -> list[str]:
        """Returns the strings in a field."""
        return self._plain(name, TEXT, lambda values: _types(values) <= {str})

    def sizes(self, name: str) -> list[int]:
        """Returns the numbers of pixels in a field; 0 where it is missing."""

        def are_sizes(values: Sequence[Any]) -> bool:
            return _types(values) <= {int} and all(0 <= each <= MOST_PIXELS for each in values)

        return self._plain(name, SIZE, are_sizes, 0)

    def scores(self) -> npt.NDArray[np.float64]:
        """Returns the scores, float64 `[rows]`."""
        found = _numbers([row.get("score") for row in self.rows])
        if found is None or not np.isfinite(found).all():
            found = np.array(self._checked("score", SCORE), np.float64)
        return found

    def boxes(self) -> npt.NDArray[np.float64]:
        """Returns the boxes, float64 `[rows, 4]`, as `[x, y, width, height]`."""
        values: list[Any] = [row.get("bbox") for row in self.rows]
        found = None
        if _types(values) <= {list} and set(map(len, values)) <= {4}:
            found = _numbers(list(chain.from_iterable(values)))
        if found is None or not (np.abs(found) <= MOST_PIXELS).all():  # a NaN is not below it
            found = np.array(self._checked("bbox", BOX), np.float64)
        boxes = found.reshape(-1, 4)
        if (boxes[:, 2:] < 0).any():
            self._checked("bbox", BOX)  # raises
        return boxes

    def difficult(self) -> list[bool]:
        """Returns whether each annotation is difficult."""
        return self._flags("difficult", is_difficult)

    def crowd(self) -> list[bool]:
        """Returns whether each annotation is a box around a group of objects."""
        return self._flags("iscrowd", is_crowd)

    def _plain(
        self,
        name: str,
        kind: Kind,
        are_plain: Callable[[Sequence[Any]], bool],
        *default: Any,
    ) -> list[Any]:
        values = [row.get(name) for row in self.rows]
        return values if are_plain(values) else self._checked(name, kind, *default)

    def _checked(self, name: str, kind: Kind, *default: Any) -> list[Any]:
        return [field(place, row, name, kind, *default) for place, row in self._places()]

    def _flags(self, name: str, is_set: Callable[[str, Row], bool]) -> list[bool]:
        values = [row.get(name) for row in self.rows]
        if _types(values) <= {int}:
            return [value != 0 for value in values]
        return [is_set(place, row) for place, row in self._places()]

    def _places(self) -> Iterator[tuple[str, Row]]:
        for i, row in enumerate(self.rows, start=self._start):
            yield f"{self._name}[{i}]", row


class BoxColumns:
    """The columns that annotations and results share.

    Args:
        name: The name of the list, for messages.

    Attributes:
        count: The number of rows so far.
        image_ids: The distinct ids of images so far, as they are in the file.
    """

    def __init__(self, name: str) -> None:
        self.count = 0
        self.image_ids: dict[int | str, int] = {}
        self._name = name
        self._category_ids: dict[int | str, int] = {}
        self._of_images: list[npt.NDArray[np.int64]] = []
        self._of_categories: list[npt.NDArray[np.int64]] = []
        self._boxes: list[npt.NDArray[np.float64]] = []

    def add(self, rows: Any) -> Rows:
        """Adds some rows; returns them for the columns that are not shared."""
        part = Rows(self._name, self.count, rows)
        self._boxes.append(part.boxes())
        self._of_images.append(_numbered(part.ids("image_id"), self.image_ids))
        self._of_categories.append(_numbered(part.ids("category_id"), self._category_ids))
        self.count += len(part.rows)
        return part

    def columns(
        self, images: Mapping[str, int], categories: Mapping[str, int]
    ) -> dict[str, npt.NDArray[Any]]:
        """Returns the columns of `GroundTruth` and `Detections`.

        Args:
            images: The images by the text of their ids.
            categories: The positions of the categories by the text of their ids.

        Raises:
            UserError: A row has the id of no image, or of no category.
        """
        xywh = joined(self._boxes, np.float64, 4)
        xywh[:, 2:] += xywh[:, :2]
        return {
            "image_ids": self._known("image", self.image_ids, self._of_images, images),
            "category_ids": self._known(
                "category", self._category_ids, self._of_categories, categories
            ),
            "boxes": xywh,
        }

    def _known(
        self,
        kind: str,
        ids: Iterable[int | str],
        numbers: list[npt.NDArray[np.int64]],
        known: Mapping[str, int],
    ) -> npt.NDArray[np.int64]:
        of_rows = joined(numbers, np.int64)
        for number, each in enumerate(ids):
            if str(each) not in known:
                row = int(np.flatnonzero(of_rows == number)[0])
                raise UserError(
                    f"{self._name}[{row}].{kind}_id must be the id of a listed {kind}, such as "
                    f"{next(iter(known), 'none, since none is listed')}. Received: {each!r}."
                )
        return np.array([known[str(each)] for each in ids], np.int64)[of_rows]


def joined(parts: Sequence[Any], dtype: Any, *shape: int) -> Any:
    """Returns parts of a column in one array; without parts an empty one of these sides."""
    # An array of no rows may have another type than those with rows.
    return np.concatenate([np.zeros((0, *shape), dtype), *parts]).astype(dtype, copy=False)


def _numbered(ids: Sequence[int | str], known: dict[int | str, int]) -> npt.NDArray[np.int64]:
    """Numbers ids from 0, in the order of their first appearance."""
    return np.array([known.setdefault(each, len(known)) for each in ids], np.int64)


def _types(values: Iterable[Any]) -> set[type]:
    return set(map(type, values))


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Returns numbers as float64; `None` if there is another value among them."""
    if not _types(values) <= {int, float}:
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None
