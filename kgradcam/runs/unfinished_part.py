"""Saves the results of an unfinished part of a run, piece by piece.

Parts end after a number of images, so that a run has the same files however often it was
interrupted. A slow method takes minutes for a part; its pieces end by the clock, and are gone when
the part is written. A piece exists from the moment when its `.json` does, which is written last.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import read_json, write_atomically
from kgradcam.runs.finished_parts import digest_with
from kgradcam.runs.heatmap_files import ClassHeatmap, pack_heatmaps, read_heatmaps
from kgradcam.runs.tables import Image


@dataclass(frozen=True)
class BatchResult:
    """The results of one batch, or of several.

    Attributes:
        images: The images that were explained.
        heatmaps: Their heatmaps.
        skipped: The reasons why others were not, by image id.
    """

    images: Sequence[Image]
    heatmaps: Sequence[ClassHeatmap]
    skipped: dict[int, str]


def merged(batches: Sequence[BatchResult]) -> BatchResult:
    """Returns the results of several batches as one."""
    return BatchResult(
        [image for batch in batches for image in batch.images],
        [heatmap for batch in batches for heatmap in batch.heatmaps],
        {i: reason for batch in batches for i, reason in batch.skipped.items()},
    )


def size_of(batches: Sequence[BatchResult]) -> int:
    """Returns the number of images, skipped ones included."""
    return sum(len(batch.images) + len(batch.skipped) for batch in batches)


def write_piece(folder: Path, part: int, piece: int, result: BatchResult) -> None:
    """Saves results of a part.

    Args:
        folder: The folder of pieces.
        part: The number of the part.
        piece: The number of the piece in the part.
        result: One or more batches.
    """
    path = folder / f"{part:05}-{piece:05}.json"
    if result.heatmaps:
        write_atomically(path.with_suffix(".npz"), pack_heatmaps(result.heatmaps))
    fields = {
        "images": [astuple(image) for image in result.images],
        "heatmaps": len(result.heatmaps),
        "skipped": [*result.skipped.items()],
    }
    digest = digest_with(fields, path.with_suffix(".npz"))
    write_atomically(path, json.dumps({**fields, "digest": digest}) + "\n")


def read_pieces(folder: Path) -> Iterator[tuple[int, BatchResult]]:
    """Yields the number of the part and the results of each piece, in order.

    Raises:
        UserError: A piece is damaged.
    """
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        with errors_in_file(path, "piece of a run"):
            digest = content.pop("digest")
            if digest_with(content, path.with_suffix(".npz")) != digest:
                raise UserError(
                    "this piece or its heatmaps are damaged. Remove the file to compute its images "
                    "again."
                )
            images = [Image(*each) for each in content["images"]]
            heatmaps = list(read_heatmaps(path.with_suffix(".npz"))) if content["heatmaps"] else []
            result = BatchResult(images, heatmaps, dict(content["skipped"]))
            part = int(path.stem.partition("-")[0])
        yield part, result


def remove_pieces(folder: Path, part: int) -> None:
    """Removes the pieces of a part; the `.json` first, without which the others do not count."""
    for suffix in (".json", ".npz"):
        for path in folder.glob(f"{part:05}-*{suffix}"):
            path.unlink()
