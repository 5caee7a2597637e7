"""JSON read in parts: what `json` reads at once, in any encoding, cut at any character."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgradcam.data import json_lists as module
from kgradcam.data.json_lists import json_lists
from kgradcam.errors import UserError

leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
value = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3)
)


def read(path: Path) -> list[tuple[str | None, Any]]:
    """The parts of each list joined again."""
    found: list[tuple[str | None, Any]] = []
    for name, part in json_lists(path):
        if found and found[-1][0] == name:
            found[-1][1].extend(part)
        else:
            found.append((name, part))
    return found


@settings(max_examples=300)
@given(
    value, st.integers(1, 9), st.integers(1, 3), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
)
def test_parts_are_the_whole(tmp_path_factory, content, window: int, rows: int, encoding) -> None:
    path = tmp_path_factory.mktemp("json") / "file.json"
    path.write_bytes(f" {json.dumps(content)} \n".encode(encoding))
    with patch.object(module, "_CHARACTERS", window), patch.object(module, "ROWS", rows):
        found = read(path)
    expected = list(content.items()) if isinstance(content, dict) else [(None, content)]
    assert found == expected


def test_a_list_comes_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"rows": list(range(5)), "none": [], "number": 12}))
    with patch.object(module, "ROWS", 2):
        found = list(json_lists(path))
    assert found == [
        ("rows", [0, 1]),
        ("rows", [2, 3]),
        ("rows", [4]),
        ("none", []),
        ("number", 12),
    ]
    path.write_text("{}")
    assert list(json_lists(path)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value: char 0"),
        ("[1, 2", r"Expecting ',' or '\]': char 5"),
        ('[{"a": 1}, {"b": ]', "Expecting value: char 11"),
        ("[1] 2", "Extra data: char 4"),
        ('{"a": [1], "a": [2]}', "the name 'a' is repeated"),
        ("{1: 2}", "Expecting property name enclosed in double quotes: char 1"),
        ('{"a" 2}', "Expecting ':': char 5"),
        ("[" * 100_000, "recursion"),
        (b"[\xff]", "codec can't decode"),
    ],
)
def test_what_is_no_json_is_named(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=rf"file.json is no readable JSON: .*{message}"):
        list(json_lists(path))


def test_a_damaged_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[tru," + " " * 1000)
    limits = patch.multiple(module, _CHARACTERS=10, _MAX_VALUE=100)
    with limits, pytest.raises(UserError, match="a value has more than 100 characters: char 1"):
        list(json_lists(path))
    with pytest.raises(UserError, match=r"No file .*nowhere.json"):
        list(json_lists(tmp_path / "nowhere.json"))
