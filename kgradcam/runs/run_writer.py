"""A run folder in the making, which outlives whatever stops its maker.

Beside the folder `NAME` that shall appear stands `.NAME.partial`:

==============  ===================================================================================
`start.json`    what the run is made from; it goes on with nothing else
`lock`          held by the process that writes
`parts/`        what some batches came to: which images are done, and their boxes
`run/`          the run itself as far as it is; it moves to its place when it is whole
==============  ===================================================================================

A part counts from the moment its file is there, and that is written last. It ends with a batch, so
that a run that goes on sees the same batches as one that never stopped, and ends in the same bytes.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import move, write_atomically
from kgradcam.runs.coco_files import write_detections, write_ground_truth
from kgradcam.runs.heatmap_files import ClassHeatmap, pack_heatmaps
from kgradcam.runs.run import SCHEMA, Run, detections_name, draw_boxes
from kgradcam.runs.tables import Detections, GroundTruth, Image, join

PART = 256
"""After so many images or heatmaps a part ends; no more are lost with a run that is killed."""


class RunWriter:
    """Writes a run, a part at a time; see `write_run`.

    Args:
        folder: Where the run shall be.
        partial: Where it is until then.
        force: Whether it may replace another run.

    Attributes:
        done: The ids of the images that were explained.
        skipped: Why others could not be, by their ids.
        maps: How many heatmaps there are.
    """

    def __init__(self, folder: Path, partial: Path, force: bool) -> None:
        self.folder = folder
        self.done: set[int] = set()
        self.skipped: dict[int, str] = {}
        self.maps = 0
        self._partial = partial
        self._force = force
        self._parts = 0
        self._images: list[Image] = []
        self._records: list[ClassHeatmap] = []
        self._flaws: dict[int, str] = {}
        self._pool = ThreadPoolExecutor(1)  # writes a part while the next one is computed
        self._writing: Future[None] | None = None

    def begin(self, info: dict[str, Any], data_dir: Path | None = None) -> None:
        """Notes what the run is made from, or holds it to what it was begun with.

        Args:
            info: What `run.json` will say before anything is counted, with `boxes` and
                `thresholds`.
            data_dir: See `datasets.open_dataset`.

        Raises:
            UserError: The run was begun with something else.
        """
        self._thresholds = [float(threshold) for threshold in info["thresholds"]]
        self._options = BoxOptions(**info["boxes"])
        path = self._partial / "start.json"
        if path.is_file():
            self.require_same(info)
            self._force = read_start(self.folder)["force"]
            for half_written in self._partial.rglob(".*"):
                half_written.unlink()
            for part in self._finished_parts():
                self._count(part)
            return
        (self._partial / "parts").mkdir()
        (self._partial / "run/heatmaps").mkdir(parents=True)
        start = {
            "info": info,
            "force": self._force,
            "data_dir": None if data_dir is None else str(data_dir),
        }
        write_atomically(path, json.dumps(start, indent=2, ensure_ascii=False) + "\n")

    def require_same(self, info: dict[str, Any]) -> None:
        """Holds a run that goes on to what it was begun with.

        Args:
            info: See `begin`, or a part of it.

        Raises:
            UserError: Something of it is not as it was.
        """
        then, now = read_start(self.folder)["info"], json.loads(json.dumps(info))
        if changes := list(_differences(then, now)):
            raise UserError(
                f"{self.folder} was begun with something else. {'; '.join(changes)}. Go on as it "
                "was begun, with --resume alone, or begin anew with --out and --force."
            )

    def add(
        self,
        images: Sequence[Image],
        records: Sequence[ClassHeatmap],
        skipped: Mapping[int, str],
    ) -> None:
        """Takes what a batch came to.

        Args:
            images: Those that were explained.
            records: Their heatmaps.
            skipped: Why others of the batch could not be, by their ids.
        """
        self._images += images
        self._records += records
        self._flaws |= skipped
        if max(len(self._records), len(self._images) + len(self._flaws)) >= PART:
            self._end_part()

    def _end_part(self) -> None:
        if self._writing:
            self._writing.result()
        part = {
            "images": [image.id for image in self._images],
            "skipped": [*self._flaws.items()],
            "heatmaps": len(self._records),
        }
        self._count(part)
        self._writing = self._pool.submit(
            self._write_part, self._parts - 1, part, self._images, self._records
        )
        self._images, self._records, self._flaws = [], [], {}

    def _count(self, part: dict[str, Any]) -> None:
        self._parts += 1
        self.done.update(part["images"])
        self.skipped |= dict(part["skipped"])
        self.maps += part["heatmaps"]

    def _write_part(
        self,
        number: int,
        part: dict[str, Any],
        images: Sequence[Image],
        records: Sequence[ClassHeatmap],
    ) -> None:
        if records:
            path = self._partial / "run/heatmaps" / f"{number:05}.npz"
            write_atomically(path, pack_heatmaps(records))
        radius = self._options.smooth_radius
        drawn = draw_boxes(records, images, self._thresholds, [radius], self._options)
        part["boxes"] = [_to_rows(drawn[radius, threshold]) for threshold in self._thresholds]
        write_atomically(self._partial / "parts" / f"{number:05}.json", json.dumps(part) + "\n")

    def _finished_parts(self) -> Iterator[dict[str, Any]]:
        for path in sorted((self._partial / "parts").glob("*.json")):
            with errors_in_file(path, "part of a run"):
                part = json.loads(path.read_text("utf-8"))
                yield {name: part[name] for name in ("images", "skipped", "heatmaps", "boxes")}

    def end_parts(self) -> None:
        """Writes what was added since the last part, and waits for it."""
        if self._images or self._flaws:
            self._end_part()
        if self._writing:
            self._writing.result()

    def finish(self, info: dict[str, Any], ground_truth: GroundTruth) -> Run:
        """Writes what is left, and moves the run to its place.

        Args:
            info: The content of `run.json`.
            ground_truth: The annotated boxes of the run's images and classes.

        Raises:
            UserError: Something else is in that place by now.
        """
        self.end_parts()
        run = self._partial / "run"
        text = json.dumps({"schema": SCHEMA, **info}, indent=2, ensure_ascii=False) + "\n"
        write_atomically(run / "run.json", text)
        write_ground_truth(run / "ground_truth.json", ground_truth)
        found: list[list[Detections]] = [[] for _ in self._thresholds]
        for part in self._finished_parts():
            for tables, rows in zip(found, part["boxes"], strict=True):
                tables.append(_from_rows(rows))
        for threshold, tables in zip(self._thresholds, found, strict=True):
            write_detections(run / detections_name(threshold), join(tables))
        _require_free(self.folder, self._force)
        if self.folder.exists():
            move(self.folder, self._partial / "replaced")
        move(run, self.folder)
        return Run(self.folder)

    def close(self) -> None:
        """Ends the writing thread, once it has finished its part."""
        self._pool.shutdown()

    def clear(self) -> None:
        """Removes all that a run before has left, but the lock."""
        for name in ("run", "parts", "replaced"):
            shutil.rmtree(self._partial / name, ignore_errors=True)
        (self._partial / "start.json").unlink(missing_ok=True)


@contextmanager
def write_run(folder: Path, *, force: bool = False, resume: bool = False) -> Iterator[RunWriter]:
    """Opens a folder to write a run into.

    The run appears with `RunWriter.finish`. When the block ends before, by an exception, the parts
    that are finished stay, to go on from.

    Args:
        folder: Where the run shall be.
        force: Replaces a run that is already there, and what is left of an interrupted one.
            Anything else there is never touched.
        resume: Goes on with an interrupted run.

    Raises:
        UserError: The folder exists, another process writes it, a run to it was interrupted, or
            there is none to go on with.
    """
    partial = _partial(folder)
    if resume:
        read_start(folder)
    else:
        _require_free(folder, force)
    partial.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(partial / "lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"Another process is writing {folder}; choose another --out.") from None
    writer = RunWriter(folder, partial, force)
    try:
        if not resume:
            if is_interrupted(folder) and not force:
                raise UserError(
                    f"A run to {folder} was interrupted. Go on with `kgradcam detect --resume "
                    f"{folder}`, or begin anew with --force."
                )
            writer.clear()
        yield writer
    finally:
        writer.close()
        kept = is_interrupted(folder)
        lock.release()
        if not kept:
            shutil.rmtree(partial)


def read_start(folder: Path) -> dict[str, Any]:
    """Returns what an interrupted run was begun with: `info`, `force` and `data_dir`.

    Raises:
        UserError: There is no interrupted run to this folder, or nothing of it is done.
    """
    partial = _partial(folder)
    if not ((partial / "run").is_dir() and (partial / "start.json").is_file()):
        done = " It is finished." if (folder / "run.json").is_file() else ""
        raise UserError(f"There is no interrupted run to {folder} to go on with.{done}")
    with errors_in_file(partial / "start.json", "start of a run"):
        start: dict[str, Any] = json.loads((partial / "start.json").read_text("utf-8"))
        return {name: start[name] for name in ("info", "force", "data_dir")}


def is_interrupted(folder: Path) -> bool:
    """Whether a run to a folder is unfinished, and some of it is done."""
    partial = _partial(folder)
    return (partial / "run").is_dir() and any((partial / "parts").glob("*.json"))


def _partial(folder: Path) -> Path:
    place = Path(os.path.abspath(folder))  # of "." too the name counts
    return place.with_name(f".{place.name}.partial")


def _require_free(folder: Path, force: bool) -> None:
    if not folder.exists():
        return
    if not force:
        raise UserError(
            f"{folder} is already there. Choose another --out, or replace it with --force."
        )
    is_run = folder.is_dir() and ((folder / "run.json").is_file() or not any(folder.iterdir()))
    if not is_run:
        raise UserError(
            f"{folder} is already there. It holds other files than a run, so --force does not "
            "replace it."
        )


def _differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Says what of the present is not as it was, each value by its path."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in now:
            yield from _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield f"{name}: {json.dumps(then)} then, {json.dumps(now)} now"


def _to_rows(found: Detections) -> list[list[float]]:
    ids = (found.image_ids, found.category_ids)
    rows: list[list[float]] = np.column_stack([*ids, found.boxes, found.scores]).tolist()
    return rows


def _from_rows(rows: Sequence[Sequence[float]]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 7)
    ids = table[:, :2].astype(np.int64)
    return Detections(ids[:, 0], ids[:, 1], table[:, 2:6], table[:, 6])
