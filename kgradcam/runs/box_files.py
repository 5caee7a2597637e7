"""Sorts the boxes of many parts on the disk, and writes a file of detections for each threshold."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kgradcam.runs.coco_files import write_detections
from kgradcam.runs.run import detections_name
from kgradcam.runs.tables import Detections

_BLOCK = 100_000  # boxes in memory at a time


def write_box_files(
    folder: Path,
    scratch: Path,
    thresholds: Sequence[float],
    parts: Iterable[Sequence[Sequence[Sequence[float]]]],
) -> None:
    """Writes the detections of a run, ordered by image and class.

    Memory grows by 24 bytes a box if the parts are not in that order, else not at all.

    Args:
        folder: The run.
        scratch: An existing folder beside it for rows that are not sorted yet; 56 bytes a box and
            threshold, removed at the end.
        thresholds: The thresholds of the run.
        parts: For each part and threshold the rows of `finished_parts.to_rows`.
    """
    paths = [scratch / f"boxes-{i}.tmp" for i in range(len(thresholds))]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in paths]
            for part in parts:
                for file, rows in zip(files, part, strict=True):
                    file.write(np.array(rows, np.float64).tobytes())
        for threshold, path in zip(thresholds, paths, strict=True):
            write_detections(folder / detections_name(threshold), _sorted(path))
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _sorted(path: Path) -> Iterator[Detections]:
    """Yields the rows of a file in blocks, by image, class and position."""
    count = path.stat().st_size // 56
    if not count:
        return
    rows: npt.NDArray[np.float64] = np.memmap(path, np.float64, "r", shape=(count, 7))
    order = None
    if (np.diff(rows[:, 0]) < 0).any():
        order = np.lexsort((rows[:, 1], rows[:, 0]))
    for start in range(0, count, _BLOCK):
        block = (
            rows[start : start + _BLOCK] if order is None else rows[order[start : start + _BLOCK]]
        )
        ids = block[:, :2].astype(np.int64)
        yield Detections(ids[:, 0], ids[:, 1], np.array(block[:, 2:6]), np.array(block[:, 6]))
