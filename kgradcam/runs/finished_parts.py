"""Reads and writes the finished parts of a run.

A part is a JSON file: its images, the reasons why others were skipped, the number of heatmaps, and
the boxes for each threshold. A digest covers all this and the heatmap file of the part.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import file_digest, read_json, write_atomically
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.heatmap_files import ClassHeatmap, pack_heatmaps, read_heatmaps
from kgradcam.runs.tables import Detections, Image

_FIELDS = {"images", "skipped", "heatmaps", "boxes"}


def heatmap_file(partial: Path, number: int) -> Path:
    """Returns the path of the heatmaps of a part in the hidden folder of a run."""
    return partial / "run/heatmaps" / f"{number:05}.npz"


def part_fields(
    images: Iterable[Image], skipped: Mapping[int, str], heatmaps: Sequence[ClassHeatmap]
) -> dict[str, Any]:
    """Returns the fields of a part that need no boxes, ready for JSON."""
    return {
        "images": [image.id for image in images],
        "skipped": [*skipped.items()],
        "heatmaps": len(heatmaps),
    }


def write_part(
    path: Path,
    heatmap_path: Path,
    fields: Mapping[str, Any],
    images: Iterable[Image],
    heatmaps: Sequence[ClassHeatmap],
    configuration: Configuration,
) -> None:
    """Draws the boxes of a part, and writes its heatmaps and then the part.

    Args:
        path: The file of the part.
        heatmap_path: The file of its heatmaps; not written if there are none.
        fields: See `part_fields`; and others, ready for JSON.
        images: The images of the heatmaps.
        heatmaps: The heatmaps.
        configuration: The options of the run.
    """
    if heatmaps:
        write_atomically(heatmap_path, pack_heatmaps(heatmaps, configuration.heatmap_dtype))
        # Rounded or not, boxes are drawn from the heatmaps that are stored.
        heatmaps = list(read_heatmaps(heatmap_path))
    options, thresholds = configuration.boxes, configuration.thresholds
    radius = options.smooth_radius
    drawn = draw_boxes(heatmaps, images, thresholds, [radius], options)
    boxes = [to_rows(drawn[radius, threshold]) for threshold in thresholds]
    content = {**fields, "boxes": boxes}
    digest = digest_with(content, heatmap_path)
    write_atomically(path, json.dumps({**content, "digest": digest}) + "\n")


def read_part(path: Path, heatmap_path: Path, check: bool = False) -> dict[str, Any]:
    """Reads a part.

    Args:
        path: The file of the part.
        heatmap_path: The file of its heatmaps.
        check: Whether to read the heatmap file too, and to compare the digest.

    Raises:
        UserError: The part or its heatmaps are damaged or missing.
    """
    content: dict[str, Any] = read_json(path)
    with errors_in_file(path, "part of a run"):
        digest = content.pop("digest")
        if missing := _FIELDS - content.keys():
            raise KeyError(min(missing))
        if check and digest_with(content, heatmap_path) != digest:
            raise UserError(
                "this part, its heatmaps or the part before it are damaged or missing. Begin "
                "anew with --out and --force."
            )
    return content


def read_parts(partial: Path, check: bool = False) -> Iterator[dict[str, Any]]:
    """Yields each part, in order; see `read_part`.

    Args:
        partial: The hidden folder of the run.
        check: As in `read_part`.
    """
    for number, path in enumerate(sorted((partial / "parts").glob("*.json"))):
        yield read_part(path, heatmap_file(partial, number), check)


def digest_with(fields: Mapping[str, Any], file: Path) -> str:
    """Returns 16 hexadecimal digits that depend on fields and, if it exists, on a file."""
    of_file = file_digest(file) if file.is_file() else ""
    return hashlib.sha256((json.dumps(fields) + of_file).encode()).hexdigest()[:16]


def to_rows(found: Detections) -> list[list[float]]:
    """Returns boxes as rows of image, category, corners and score."""
    ids = (found.image_ids, found.category_ids)
    rows: list[list[float]] = np.column_stack([*ids, found.boxes, found.scores]).tolist()
    return rows
