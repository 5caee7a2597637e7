"""The plan of a run: the images of each part, so that many processes can share the parts.

A part is a number of whole batches, so its results do not depend on who computes it. A shard is a
range of parts. In the hidden folder of the run (see `partial_run`) there are:

================  =================================================================================
`plan.jsonl.gz`   a row for each image, in the order of their ids; a gzip member for 256 rows
`plan.order`      the ids in the order of the batches, uint32; missing where that is their own order
`plan.json`       the rest, and a digest; it is written last, and makes the plan count
`parts/`          `PART.DIGEST.npz` and `.json`, with the digest of the plan: the finished parts
================  =================================================================================
"""

import gzip
import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kgradcam.data.batch_order import batch_order
from kgradcam.data.images import sides
from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import open_regular, read_json, write_atomically
from kgradcam.runs import run_writer
from kgradcam.runs.partial_run import Start, partial_folder, read_start, write_start
from kgradcam.runs.run_info import RunInfo
from kgradcam.runs.tables import Image
from kgradcam.storage import place

_SCHEMA = 1
_ROWS = 256
_MAX_BYTES = 2**40
_PLAN, _IMAGES, _ORDER = "plan.json", "plan.jsonl.gz", "plan.order"


class PlannedImage(NamedTuple):
    """An image to explain.

    Attributes:
        file_name: Its name in the dataset.
        width: Width in pixels.
        height: Height in pixels.
        path: Its file, relative to the folder of the dataset; `None` for a record.
        record: Its position in a split of tensorflow-datasets; `None` for a file.
        objects: Category, xmin, ymin, xmax, ymax and difficult of each object of the run's classes.
        labels: The categories of the run that are annotated on it without a box.
    """

    file_name: str
    width: int
    height: int
    path: str | None
    record: int | None
    objects: list[list[float]]
    labels: list[int]


@dataclass(frozen=True)
class Plan:
    """A plan that was written.

    Attributes:
        folder: The run folder to be.
        start: The options.
        digest: 16 hexadecimal digits that depend on the options and on each row.
        shards: The number of shards.
        images: The number of images.
        skipped: `(file name, reason)` of those that cannot be used.
        offsets: Where each gzip member begins, and the end.
        starts: Where each part begins in the order of the batches, and the end.
        ordered: Whether that is the order of the ids.
    """

    folder: Path
    start: Start
    digest: str
    shards: int
    images: int
    skipped: Sequence[tuple[str, str]]
    offsets: Sequence[int]
    starts: Sequence[int]
    ordered: bool

    @property
    def info(self) -> RunInfo:
        """The content of `run.json`, as far as it is known before the run."""
        return self.start.info

    @property
    def parts(self) -> int:
        """The number of parts."""
        return len(self.starts) - 1

    def shard(self, index: int) -> range:
        """Returns the parts of a shard, which is counted from 0; none if shards outnumber parts."""
        first, end = (i * self.parts // self.shards for i in (index, index + 1))
        return range(first, end)

    def part_file(self, number: int, suffix: str = ".json") -> Path:
        """Returns the path of a finished part, or of its heatmaps with suffix `".npz"`."""
        # The digest keeps parts of an older plan to the same folder apart.
        return partial_folder(self.folder) / "parts" / f"{number:05}.{self.digest}{suffix}"

    def done(self) -> set[int]:
        """Returns the parts that are finished."""
        found = partial_folder(self.folder).glob(f"parts/*.{self.digest}.json")
        return {int(path.name.partition(".")[0]) for path in found} & set(range(self.parts))

    def part(self, number: int) -> list[tuple[Image, PlannedImage]]:
        """Returns the images of a part, in the order of their ids."""
        ids = sorted(self._ids(number))
        found = []
        path = partial_folder(self.folder) / _IMAGES
        with open_regular(path, _MAX_BYTES) as file, errors_in_file(path, "plan of a run"):
            # Sorted ids of a member are adjacent, so it is decompressed once.
            for member, group in groupby(ids, lambda each: (each - 1) // _ROWS):
                file.seek(self.offsets[member])
                data = file.read(self.offsets[member + 1] - self.offsets[member])
                rows = gzip.decompress(data).splitlines()
                found += [_parse(each, rows[(each - 1) % _ROWS]) for each in group]
        return found

    def __iter__(self) -> Iterator[tuple[Image, PlannedImage]]:
        """Yields every image, in the order of their ids."""
        path = partial_folder(self.folder) / _IMAGES
        with (
            open_regular(path, _MAX_BYTES) as file,
            gzip.open(file) as rows,
            errors_in_file(path, "plan of a run"),
        ):
            for i, row in enumerate(rows, start=1):
                yield _parse(i, row)

    def _ids(self, number: int) -> list[int]:
        first, end = self.starts[number : number + 2]
        if self.ordered:
            return list(range(first + 1, end + 1))
        with open_regular(partial_folder(self.folder) / _ORDER, _MAX_BYTES) as file:
            file.seek(4 * first)
            ids: list[int] = np.frombuffer(file.read(4 * (end - first)), "<u4").tolist()
        return ids


def _parse(image_id: int, row: bytes) -> tuple[Image, PlannedImage]:
    planned = PlannedImage(*json.loads(row))
    return Image(image_id, planned.file_name, planned.width, planned.height), planned


def has_plan(folder: Path) -> bool:
    """Returns whether an unfinished run has a plan."""
    return (partial_folder(folder) / _PLAN).is_file()


def is_merged(folder: Path) -> bool:
    """Returns whether a run is finished, and no other one to its folder is planned."""
    return (folder / "run.json").is_file() and not has_plan(folder)


def read_plan(folder: Path) -> Plan:
    """Reads the plan of a run.

    Args:
        folder: The run folder to be.

    Raises:
        UserError: There is no plan, or it is damaged.
    """
    folder = place(folder)
    path = partial_folder(folder) / _PLAN
    start = read_start(folder)
    if not path.is_file():
        raise UserError(
            f"The run to {folder} has no plan. Continue it with `kgradcam detect --resume "
            f"{folder}`, or begin anew with --plan --force."
        )
    content = read_json(path)
    with errors_in_file(path, "plan of a run"):
        rows = content.pop("rows")
        if content.pop("schema") != _SCHEMA or content["digest"] != _digest(start.info, rows):
            raise UserError(
                "it belongs to another version of kgradcam, or to another start.json. Plan anew "
                "with --force."
            )
        content["skipped"] = [(name, reason) for name, reason in content["skipped"]]
        plan = Plan(folder, start, **content)
        size = path.with_name(_IMAGES).stat().st_size
        if size != plan.offsets[-1]:
            raise UserError(f"{_IMAGES} beside it has {size} bytes, not {plan.offsets[-1]}.")
        return plan


def write_plan(
    folder: Path,
    start: Start,
    shards: int,
    images: Iterable[PlannedImage],
    skipped: Sequence[tuple[str, str]],
) -> Plan:
    """Writes the plan of a run, in memory of 4 bytes an image; 12 for images of many sizes.

    Args:
        folder: The run folder to be; its hidden folder exists and is locked.
        start: The options.
        shards: The number of shards.
        images: The images to explain, in the order of their ids.
        skipped: Those that cannot be used.
    """
    partial = partial_folder(folder)
    for name in ("parts", "run/heatmaps"):
        (partial / name).mkdir(parents=True)
    configuration = start.info.configuration
    fixed = sides(configuration.image_size)[::-1] if configuration.image_size else None
    heights, widths = array("I"), array("I")
    offsets, digest, count = [0], hashlib.sha256(), 0

    def members() -> Iterator[bytes]:
        nonlocal count
        remaining = iter(images)
        while block := list(islice(remaining, _ROWS)):
            count += len(block)
            if fixed is None:
                heights.extend(each.height for each in block)
                widths.extend(each.width for each in block)
            text = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in block)
            # Without a time, so that equal rows have an equal digest.
            member = gzip.compress(text.encode(), mtime=0)
            digest.update(member)
            offsets.append(offsets[-1] + len(member))
            yield member

    write_start(folder, start)
    write_atomically(partial / _IMAGES, members())
    # Images of one size need no table of sizes, which would triple the memory.
    shapes = repeat(fixed, count) if fixed else zip(heights, widths, strict=True)
    order, starts = array("I"), [0]
    for batch in batch_order(shapes, configuration.batch_size):
        order.extend(batch)
        if len(order) - starts[-1] >= run_writer.PART or len(order) == count:
            starts.append(len(order))
    ids = np.frombuffer(order, np.uintc).astype("<u4") + np.uint32(1)
    ordered = bool((np.diff(ids.astype(np.int64)) == 1).all())
    if not ordered:
        write_atomically(partial / _ORDER, ids.tobytes())
    rows = digest.hexdigest()
    plan = Plan(
        folder, start, _digest(start.info, rows), shards, count, skipped, offsets, starts, ordered
    )
    content: dict[str, Any] = {"schema": _SCHEMA, "rows": rows} | {
        name: getattr(plan, name)
        for name in ("digest", "shards", "images", "skipped", "offsets", "starts", "ordered")
    }
    write_atomically(partial / _PLAN, json.dumps(content) + "\n")
    return plan


def _digest(info: RunInfo, rows: str) -> str:
    text = json.dumps(asdict(info)) + rows
    return hashlib.sha256(text.encode()).hexdigest()[:16]
