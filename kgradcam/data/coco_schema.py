"""The one check of COCO files: a message names the entry, its field, and what was expected.

Ids are whole numbers or strings, and are compared as text: `7`, `7.0` and `"7"` are one id, `"07"`
is another.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kgradcam.data.flags import parse_flag
from kgradcam.errors import UserError

_ABSENT = object()
MOST_PIXELS = 2**31 - 1
"""The largest coordinate and size that is read: pixels are drawn and counted as integers."""

Kind = tuple[str, Callable[[Any], Any]]
"""The expected value of a field in words, and its conversion, which raises `ValueError`."""


def entries(content: Any, name: str, start: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of a list with their places, as `annotations[3]`.

    Args:
        content: Parsed JSON, that should be a list of objects.
        name: The name of the list.
        start: The position of the first of these objects in the list.

    Raises:
        UserError: It is no list, or an entry is no object.
    """
    if not isinstance(content, list):
        raise UserError(f"{name} must be a list of objects. Received: {_short(content)}.")
    for i, entry in enumerate(content, start):
        if not isinstance(entry, dict):
            raise UserError(f"{name}[{i}] must be an object. Received: {_short(entry)}.")
        yield f"{name}[{i}]", entry


def field(place: str, entry: dict[str, Any], name: str, kind: Kind, default: Any = _ABSENT) -> Any:
    """Returns the converted value of a field.

    Args:
        place: The place of the entry.
        entry: The entry.
        name: The name of the field.
        kind: `ID`, `TEXT`, `BOX`, `SCORE` or `SIZE`.
        default: The value of a field that is missing or null. Without it, the field is required.

    Raises:
        UserError: The field is missing or of another kind.
    """
    expected, convert = kind
    value = entry.get(name)
    if value is None:
        if default is not _ABSENT:
            return default
        received = "null" if name in entry else f"{_short([*entry])} without it"
        raise UserError(f"{place} has no {name!r}, {expected}. Received: {received}.")
    try:
        return convert(value)
    except ValueError:
        raise UserError(f"{place}.{name} must be {expected}. Received: {_short(value)}.") from None


def is_difficult(place: str, entry: dict[str, Any]) -> bool:
    """Whether an annotation is difficult: its `difficult`; else its `ignore` or its `iscrowd`."""
    names = ("difficult",) if "difficult" in entry else ("ignore", "iscrowd")
    return any(parse_flag(entry.get(name), f"{place}.{name}") for name in names)


def is_crowd(place: str, entry: dict[str, Any]) -> bool:
    """Whether an annotation is a box around a group of objects."""
    return parse_flag(entry.get("iscrowd"), f"{place}.iscrowd")


def numbered(name: str, ids: Sequence[int | str]) -> list[int]:
    """Returns a number for each id: the ids themselves if all are numbers, else 1, 2, ...

    Args:
        name: The name of the list that they are from.
        ids: The id of each of its entries.

    Raises:
        UserError: Two entries have one id.
    """
    if len(set(map(str, ids))) < len(ids):
        first: dict[str, int] = {}
        for i, each in enumerate(ids):
            if first.setdefault(str(each), i) != i:
                raise UserError(
                    f"{name}[{i}].id must be an id of its own. Received: {each!r}, the id of "
                    f"{name}[{first[str(each)]}] too."
                )
    numbers = [each for each in ids if isinstance(each, int) and abs(each) < 2**63]
    return numbers if len(numbers) == len(ids) else list(range(1, len(ids) + 1))


def _id(value: Any) -> int | str:
    if isinstance(value, str) and value:
        return value
    if type(value) in (int, float) and value == int(_finite(value)):
        return int(value)
    raise ValueError


def _text(value: Any) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise ValueError


def _pixels(value: Any) -> float:
    number = _finite(value)
    if abs(number) > MOST_PIXELS:
        raise ValueError
    return number


def _finite(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError
    try:
        number = float(value)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(number):
        raise ValueError
    return number


def _size(value: Any) -> int:
    if _pixels(value) < 0:
        raise ValueError
    return int(value)


def _box(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError
    box = [_pixels(each) for each in value]
    if min(box[2:]) < 0:
        raise ValueError
    return box


ID: Kind = ("a whole number or a string", _id)
TEXT: Kind = ("a string", _text)
SIZE: Kind = ("a number of pixels", _size)
SCORE: Kind = ("a finite number", _finite)
BOX: Kind = ("[x, y, width, height], four finite numbers, no negative width or height", _box)


def _short(value: Any) -> str:
    text = f"{type(value).__name__} " if isinstance(value, list | dict) else ""
    text += repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
