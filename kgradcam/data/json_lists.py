"""Reads the lists of a large JSON file some rows at a time.

Parsed at once, the results of five million boxes would take gigabytes of dictionaries.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kgradcam.errors import UserError
from kgradcam.files import open_regular

ROWS = 4096
"""The most rows that are parsed at once."""

_CHARACTERS = 2**20  # read at once
_MAX_VALUE = 2**26  # characters of a row, or of a value beside the lists
_parse = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*").match


def json_lists(path: Path, limit: int = 2**36) -> Iterator[tuple[str | None, Any]]:
    """Yields the values of a JSON object with their names; a list in parts of at most `ROWS` rows.

    Args:
        path: The file. Its encoding is UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
        limit: The maximum number of bytes.

    Yields:
        A name and a value, or a name and some rows. An empty list gives one empty part, an empty
        object nothing. A document that is no object has the name `None`.

    Raises:
        UserError: The file is missing, cannot be read, is not JSON, or repeats a name.
    """
    try:
        with open_regular(path, limit) as opened:
            encoding = json.detect_encoding(opened.peek(4)[:4])
            with io.TextIOWrapper(opened, encoding, "surrogatepass", newline="") as text:
                yield from _Reader(text).document()
    except FileNotFoundError:
        raise UserError(f"No file {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except UserError:
        raise
    # Deeply nested JSON exhausts the parser's recursion.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON: {error}") from error


class _Reader:
    """A window of a text, from the first character that is not parsed yet."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._text = ""
        self._place = 0
        self._before = 0  # characters before the window

    def document(self) -> Iterator[tuple[str | None, Any]]:
        if self._peek() == "{":
            self._place += 1
            yield from self._members()
        else:
            yield from self._values(None)
        if self._peek():
            raise self._error("Extra data")

    def _members(self) -> Iterator[tuple[str | None, Any]]:
        if self._peek() == "}":
            self._place += 1
            return
        names: set[str] = set()
        while True:
            if self._peek() != '"':
                raise self._error("Expecting property name enclosed in double quotes")
            name = self._value()
            if name in names:
                raise self._error(f"the name {name[:80]!r} is repeated")
            names.add(name)
            self._take(":")
            yield from self._values(name)
            if self._take(",}") == "}":
                return

    def _values(self, name: str | None) -> Iterator[tuple[str | None, Any]]:
        if self._peek() != "[":
            yield name, self._value()
            return
        self._place += 1
        rows: list[Any] = []
        if self._peek() == "]":
            self._place += 1
            yield name, rows
            return
        while True:
            rows.append(self._value())
            if self._text.startswith(", ", self._place):  # as `json` writes it
                self._place += 2
            elif self._take(",]") == "]":
                yield name, rows
                return
            if len(rows) == ROWS:
                yield name, rows
                rows = []

    def _value(self) -> Any:
        if not self._text.startswith(("{", "["), self._place):
            self._peek()
        while True:
            failure: json.JSONDecodeError | None = None
            try:
                value, end = _parse(self._text, self._place)
            except json.JSONDecodeError as error:
                failure, end = error, self._place
            else:
                if end + 2 < len(self._text):
                    self._place = end
                    return value
            # It may go on after the window: of a number cut off at "1e+" the parser takes the "1".
            length = end - self._place
            if len(self._text) - self._place > _MAX_VALUE:
                raise self._error(f"a value has more than {_MAX_VALUE:,} characters")
            if not self._read():
                break
        if failure is not None:
            raise self._error(failure.msg)
        self._place += length
        return value

    def _take(self, expected: str) -> str:
        character = self._peek()
        if not character or character not in expected:
            raise self._error(f"Expecting {' or '.join(map(repr, expected))}")
        self._place += 1
        return character

    def _peek(self) -> str:
        """The next character that is not a space; empty at the end."""
        while True:
            found = _space(self._text, self._place)
            self._place = found.end() if found else 0
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read():
                return ""

    def _read(self) -> bool:
        rest = self._text[self._place :]
        # As much again as the rest, so that a long value is parsed a few times only.
        added = self._file.read(max(_CHARACTERS, len(rest)))
        self._before += self._place
        self._text, self._place = rest + added, 0
        return bool(added)

    def _error(self, message: str) -> ValueError:
        return ValueError(f"{message}: char {self._before + self._place}")
