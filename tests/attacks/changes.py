"""Hostile changes of a file: of values in JSON, entries of zip files, bytes, and its kind."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

HOSTILE: list[Any] = [
    *(None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, -(2**63), int("9" * 4000)),
    *("", "1", "\ud800", "a\x1b[2J\x9b|\n", "9" * 5000, "1e400", "../../x", "/dev/zero", "a\0b"),
    *([], {}, [[]], [None], {"": 1}, 1e308, 2**31),
]
TEXTS = [str(each) if not isinstance(each, list | dict) else "x" for each in HOSTILE[1:]]
TEXTS = [text for text in TEXTS if "\0" not in text] + ["nan", "1e-400", "0:1:1e-9", "1:2", "0.3"]
BYTES = [b"", b"\xff" * 8, b"9" * 5000, b"1e400", b"NaN", b"[" * 3000, b"\\ud800", b"-1", b"\0"]

Draw = Callable[[st.SearchStrategy[Any]], Any]


def change_document(draw: Draw, path: Path) -> None:
    if path.suffix != ".json" or draw(st.integers(0, 3)) == 0:
        path.write_bytes(_damaged(draw, path.read_bytes()))
        return
    content = json.loads(path.read_text())
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        way = draw(st.integers(0, 4))
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[draw(st.sampled_from(["", "\ud800", "x" * 5000, "trusted"]))] = holder.pop(key)
        elif way == 2:
            for _ in range(draw(st.sampled_from([1, 100]))):
                holder[key] = [holder[key]]
        else:
            holder[key] = draw(st.sampled_from(HOSTILE))
    path.write_text(json.dumps(content))


def _places(content: Any) -> Any:
    """Yields each value of parsed JSON as its list or object and its key there."""
    keys = list(content) if isinstance(content, dict) else range(min(len(content), 6))
    for key in keys:
        yield content, key
        if isinstance(content[key], list | dict):
            yield from _places(content[key])


def _damaged(draw: Draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(changed)))
        end = draw(st.sampled_from([place, place + 1, place + 8, len(changed)]))
        changed[place:end] = draw(st.sampled_from(BYTES) | st.binary(max_size=8))
    return bytes(changed)


def change_archive(draw: Draw, path: Path) -> None:
    content = path.read_bytes()
    if path.suffix == ".jpg" or draw(st.booleans()):
        path.write_bytes(_damaged(draw, content))
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    place = draw(st.integers(0, len(entries) - 1))
    name, data = entries[place]
    array = io.BytesIO()
    values = draw(st.sampled_from([np.zeros((3, 0)), np.full(4, np.nan), np.zeros(2**20, "U4")]))
    np.save(array, values)
    header = io.BytesIO()
    huge = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    np.lib.format.write_array_header_1_0(header, huge)
    more = [(name, data), ("../x.npy", data), (f"{name}\x1b", data)]
    changed = [(name, each) for each in (b"", _damaged(draw, data), array.getvalue())]
    changed += [(name, header.getvalue() + data)]
    way = draw(st.integers(0, 7))
    if way == 0:
        del entries[place]
    elif way < 4:
        entries.append(more[way - 1])
    else:
        entries[place] = changed[way - 4]
    compression = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore", UserWarning)  # two entries of one name
        for each in entries:
            archive.writestr(*each)


def change_place(draw: Draw, path: Path) -> None:
    way = draw(st.sampled_from("pipe device folder sparse dangling loop missing empty".split()))
    path.unlink()
    if way == "pipe":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    elif way in ("device", "dangling", "loop"):
        path.symlink_to({"device": "/dev/zero", "dangling": "nowhere", "loop": path.name}[way])
    elif way in ("sparse", "empty"):
        path.touch()
        os.truncate(path, 2**40 if way == "sparse" else 0)
