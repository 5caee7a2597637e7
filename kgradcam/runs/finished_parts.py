"""Reads and writes the finished parts of a run.

A part is a JSON file with the images, the reasons why others were skipped, the number of heatmaps,
the boxes for each threshold, and a digest of all this and of the part's heatmap file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import file_digest, read_json, write_atomically
from kgradcam.runs.tables import Detections

_FIELDS = ("images", "skipped", "heatmaps", "boxes")


def heatmap_file(partial: Path, number: int) -> Path:
    """Returns the path of the heatmaps of a part in the hidden folder of a run."""
    return partial / "run/heatmaps" / f"{number:05}.npz"


def write_part(partial: Path, number: int, part: Mapping[str, Any]) -> None:
    """Writes a part whose heatmap file is written already.

    Args:
        partial: The hidden folder of the run.
        number: The number of the part.
        part: The fields `images`, `skipped`, `heatmaps` and `boxes`, representable as JSON.
    """
    fields = {name: part[name] for name in _FIELDS}
    digest = digest_with(fields, heatmap_file(partial, number))
    text = json.dumps({**fields, "digest": digest}) + "\n"
    write_atomically(partial / "parts" / f"{number:05}.json", text)


def read_parts(partial: Path, check: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the fields of each part, in order.

    Args:
        partial: The hidden folder of the run.
        check: Whether to read the heatmap files too, and to compare digests.

    Raises:
        UserError: A part or its heatmaps are damaged or missing.
    """
    for number, path in enumerate(sorted((partial / "parts").glob("*.json"))):
        content = read_json(path)
        with errors_in_file(path, "part of a run"):
            part = {name: content[name] for name in _FIELDS}
            heatmaps = heatmap_file(partial, number)
            is_next = path.stem == heatmaps.stem
            if check and not (is_next and digest_with(part, heatmaps) == content["digest"]):
                raise UserError(
                    "this part, its heatmaps or the part before it are damaged or missing. Begin "
                    "anew with --out and --force."
                )
        yield part


def digest_with(fields: Mapping[str, Any], file: Path) -> str:
    """Returns 16 hexadecimal digits that depend on fields and, if it exists, on a file."""
    of_file = file_digest(file) if file.is_file() else ""
    return hashlib.sha256((json.dumps(fields) + of_file).encode()).hexdigest()[:16]


def to_rows(found: Detections) -> list[list[float]]:
    """Returns boxes as rows of image, category, corners and score."""
    ids = (found.image_ids, found.category_ids)
    rows: list[list[float]] = np.column_stack([*ids, found.boxes, found.scores]).tolist()
    return rows


def from_rows(rows: Sequence[Sequence[float]]) -> Detections:
    """Returns the boxes of `to_rows`."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    ids = table[:, :2].astype(np.int64)
    return Detections(ids[:, 0], ids[:, 1], table[:, 2:6], table[:, 6])
