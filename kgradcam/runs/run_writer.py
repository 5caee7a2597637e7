"""Writes a run folder part by part, so that an interrupted run can be resumed.

`partial_run` describes the folder. A part exists from the moment when its file in `parts/` does,
which is written last. Parts end with a batch. So a resumed run has the same batches as one without
interruption, and the same bytes. `unfinished_part` saves the batches after the last part.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock

from kgradcam.errors import UserError, differences
from kgradcam.files import write_atomically
from kgradcam.runs.box_files import write_box_files
from kgradcam.runs.coco_files import write_ground_truth
from kgradcam.runs.finished_parts import heatmap_file, part_fields, read_parts, write_part
from kgradcam.runs.heatmap_files import ClassHeatmap, read_heatmaps
from kgradcam.runs.partial_run import (
    Start,
    is_interrupted,
    partial_folder,
    read_start,
    write_start,
)
from kgradcam.runs.replacing import put_in_place, recover, require_free, require_possible
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import RunInfo
from kgradcam.runs.tables import GroundTruth, Image
from kgradcam.runs.unfinished_part import (
    BatchResult,
    merged,
    read_pieces,
    remove_pieces,
    size_of,
    write_piece,
)
from kgradcam.runs.whole_run import digests

PART = 256
"""A part ends with the batch in which it reaches this number of images.

So parts are known before any model runs: `--shards` needs that. A part has no more heatmaps than
fit into memory, as long as an image has a few classes.
"""

SAVE_SECONDS = 30.0
"""Results are saved after the first batch that ends so long after the last save. A killed run
loses no more than that and a batch; an interrupted one loses the batch in progress."""

Report = Callable[[str], None]
"""Receives a line of text for the user."""


class RunWriter:
    """Writes a run part by part; `write_run` makes one.

    Args:
        folder: The run folder to be.
        force: Whether it may replace another run.
        report: Called with a line of text if leftovers of a killed process were removed.

    Attributes:
        done: The ids of the images that were explained.
        skipped: The reasons why others were not, by image id.
        heatmaps: The number of heatmaps so far.
    """

    def __init__(self, folder: Path, force: bool, report: Report) -> None:
        self.folder = folder
        self.done: set[int] = set()
        self.skipped: dict[int, str] = {}
        self.heatmaps = 0
        self._partial = partial_folder(folder)
        self._force = force
        self._report = report
        self._parts = 0
        self._batches: list[BatchResult] = []
        self._saved = 0  # of them
        self._pieces = 0
        self._last_save = time.monotonic()
        # One thread draws and writes the boxes of a part while the next part is computed.
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def begin(self, info: RunInfo, data_dir: Path | None = None) -> None:
        """Starts the run, or resumes it if it was begun with the same options.

        Args:
            info: The content of `run.json`, without counts.
            data_dir: The folder of tensorflow-datasets, if one was given.

        Raises:
            UserError: The run was begun with other options.
        """
        self._configuration = info.configuration
        if (self._partial / "start.json").is_file():
            self.require_same(info.to_json())
            # The temporary files of write_atomically when the process was killed.
            for half_written in self._partial.rglob(".*"):
                half_written.unlink()
                self._report(f"Removed {half_written}, which a killed process left incomplete.")
            for part in read_parts(self._partial, check=True):
                self._count(part)
            self._resume_part()
            return
        (self._partial / "parts").mkdir()
        (self._partial / "pieces").mkdir()
        (self._partial / "run/heatmaps").mkdir(parents=True)
        write_start(self.folder, Start(info, self._force, data_dir))

    def require_same(self, info: Mapping[str, Any]) -> None:
        """Checks that an interrupted run was begun with these options.

        Args:
            info: The content of `run.json`, or a part of it.

        Raises:
            UserError: A value is another one.
        """
        then = read_start(self.folder).info.to_json()
        if changes := differences(then, info):
            raise UserError(
                f"{self.folder} was begun with other options. {'; '.join(changes)}. Resume it with "
                "--resume alone, or begin anew with --out and --force."
            )

    def add(
        self,
        images: Sequence[Image],
        heatmaps: Sequence[ClassHeatmap],
        skipped: Mapping[int, str],
    ) -> None:
        """Adds the results of a batch.

        Args:
            images: The images that were explained.
            heatmaps: Their heatmaps.
            skipped: The reasons why others of the batch were not, by image id.
        """
        # One step, so that an interruption leaves no half of a batch.
        self._batches.append(BatchResult(images, heatmaps, dict(skipped)))
        if size_of(self._batches) >= PART:
            self._end_part()
        elif time.monotonic() - self._last_save >= SAVE_SECONDS:
            self._save()

    def end_parts(self) -> None:
        """Writes the results since the last part, and waits until they are on the disk."""
        if self._batches:
            self._end_part()
        if self._writing:
            self._writing.result()

    def stored_heatmaps(self) -> Iterator[ClassHeatmap]:
        """Yields the heatmaps of the finished parts, in the order of `Run.heatmaps`."""
        paths = (heatmap_file(self._partial, number) for number in range(self._parts))
        return chain.from_iterable(read_heatmaps(path) for path in paths if path.is_file())

    def finish(
        self, info: RunInfo, ground_truth: GroundTruth, boxes: Iterable[Any] | None = None
    ) -> Run:
        """Writes the rest of the run, and renames it to its folder.

        Args:
            info: The content of `run.json`.
            ground_truth: The annotated boxes of the run's images and classes.
            boxes: See `complete`. Default: the boxes that were drawn part by part.

        Returns:
            The finished run.

        Raises:
            UserError: The folder exists by now, and may not be replaced.
        """
        self.end_parts()
        run = self._partial / "run"
        write_ground_truth(run / "ground_truth.json", ground_truth)
        drawn = (part["boxes"] for part in read_parts(self._partial))
        return self.complete(info, drawn if boxes is None else boxes)

    def complete(
        self,
        info: RunInfo,
        boxes: Iterable[Sequence[Sequence[Sequence[float]]]],
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> Run:
        """Writes the boxes and `run.json` beside the other files, and renames the run.

        Args:
            info: The content of `run.json`.
            boxes: The rows of boxes of each part, by threshold.
            known: The digests of files that need not be read again.

        Returns, Raises:
            See `finish`.
        """
        info.warn_if_empty()
        run = self._partial / "run"
        write_box_files(run, self._partial, info.configuration.thresholds, boxes)
        write_atomically(run / "run.json", replace(info, files=digests(run, known)).to_text())
        require_free(self.folder, self._force)
        put_in_place(run, self.folder)
        return Run(self.folder)

    def close(self) -> None:
        """Waits for the writing thread, and saves the batches after the last part."""
        self._pool.shutdown()
        with contextlib.suppress(OSError):  # a full disk has already ended the run
            self._save()

    def clear(self) -> bool:
        """Removes leftovers of an earlier run; returns whether there were any."""
        leftovers = [each for each in self._partial.iterdir() if each.name != "lock"]
        for each in leftovers:
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            else:
                each.unlink()
        return bool(leftovers)

    def _end_part(self) -> None:
        if self._writing:
            self._writing.result()
        self._save()  # a kill while the part is written must not lose it
        result = merged(self._batches)
        part = part_fields(result.images, result.skipped, result.heatmaps)
        self._batches, self._saved, self._pieces = [], 0, 0
        self._count(part)
        number = self._parts - 1
        self._writing = self._pool.submit(self._write_part, number, part, result)

    def _save(self) -> None:
        """Saves the batches of the unfinished part that are not saved yet."""
        self._last_save = time.monotonic()
        unsaved = self._batches[self._saved :]
        if unsaved:
            write_piece(self._partial / "pieces", self._parts, self._pieces, merged(unsaved))
            self._saved, self._pieces = len(self._batches), self._pieces + 1

    def _resume_part(self) -> None:
        """Continues with the saved batches of the part in which the run was interrupted."""
        folder = self._partial / "pieces"
        for part, result in read_pieces(folder):
            ids = {image.id for image in result.images} | set(result.skipped)
            # Known: of a finished part, or saved twice because the first save was interrupted.
            if part != self._parts or ids & (self.done | set(self.skipped)):
                continue
            self.done.update(image.id for image in result.images)
            self.skipped |= result.skipped
            self._batches.append(result)
            self._saved, self._pieces = len(self._batches), self._pieces + 1
            if size_of(self._batches) >= PART:
                self._end_part()

    def _count(self, part: dict[str, Any]) -> None:
        self._parts += 1
        self.done.update(part["images"])
        self.skipped |= dict(part["skipped"])
        self.heatmaps += part["heatmaps"]

    def _write_part(
        self,
        number: int,
        part: dict[str, Any],
        result: BatchResult,
    ) -> None:
        write_part(
            self._partial / "parts" / f"{number:05}.json",
            heatmap_file(self._partial, number),
            part,
            result.images,
            result.heatmaps,
            self._configuration,
        )
        remove_pieces(self._partial / "pieces", number)


@contextlib.contextmanager
def write_run(
    folder: Path, *, force: bool = False, resume: bool = False, report: Report = lambda line: None
) -> Iterator[RunWriter]:
    """Opens a run folder for writing, and locks it.

    The folder appears with `RunWriter.finish`. If the block ends earlier, by an exception, the
    finished parts stay for `resume`.

    Args:
        folder: The run folder to be.
        force: Replaces an existing run, and the parts of an interrupted one. A folder with other
            content is never replaced.
        resume: Resumes an interrupted run.
        report: Called with a line of text if leftovers of a killed process were removed.

    Yields:
        The writer.

    Raises:
        UserError: The folder exists or can never be a run, another process writes it, an
            interrupted run to it exists, or `resume` finds none.
    """
    partial = partial_folder(folder)
    require_possible(folder)
    if resume and not partial.is_dir():
        read_start(folder)  # raises
    partial.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(partial / "lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"Another process is writing {folder}; choose another --out.") from None
    except NotImplementedError:
        raise UserError(
            f"The file system of {folder} has no locks. Choose an --out on another one."
        ) from None
    writer = RunWriter(folder, force, report)
    try:
        leftovers = recover(folder) and writer.clear()
        if resume:
            writer._force = read_start(folder).force
        else:
            require_free(folder, force)
            if is_interrupted(folder) and not force:
                raise UserError(
                    f"A run to {folder} was interrupted. Resume it with `kgradcam detect --resume "
                    f"{folder}`, or begin anew with --force."
                )
            leftovers = writer.clear() or leftovers
        if leftovers:
            report(f"Removed leftovers of an earlier run to {folder}.")
        yield writer
    finally:
        writer.close()
        kept = is_interrupted(folder)
        lock.release()
        if not kept:
            shutil.rmtree(partial)
