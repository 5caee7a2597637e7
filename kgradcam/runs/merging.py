"""Merges the parts of a planned run into the run that a single process would have written."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.data.examples import joined_digest
from kgradcam.errors import UserError
from kgradcam.files import file_digest, sync_folder
from kgradcam.runs.coco_files import Annotation, write_annotations
from kgradcam.runs.finished_parts import heatmap_file, read_part
from kgradcam.runs.partial_run import partial_folder
from kgradcam.runs.plan import Plan, is_merged, read_plan
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import Counts, RunInfo, SkippedImage
from kgradcam.runs.run_writer import Report, write_run
from kgradcam.runs.runs_on_stores import merged_locally
from kgradcam.storage import forget_listings, is_remote, place

_COMMANDS = 20


def merge(folder: Path, *, report: Report = lambda line: None) -> Run:
    """Merges the parts of a planned run, if all are there.

    Each part is read twice, and the annotations come from the plan. A merge that was killed may be
    repeated; so may a finished one, which changes nothing.

    Args:
        folder: The run folder to be.
        report: Called with a line of text.

    Raises:
        UserError: Parts are missing or damaged, which the message names; parts were made in
            different precisions; or another process is merging.
    """
    folder = place(folder)
    if is_merged(folder):
        report(f"{folder} is merged already.")
        return Run(folder)
    if is_remote(folder):
        forget_listings(folder)
        plan = read_plan(folder)
        _require_all(plan, sorted(set(range(plan.parts)) - plan.done()), "missing")
        with merged_locally(folder) as local:
            merge(local, report=report)
        return Run(folder)
    with write_run(folder, resume=True, report=report) as writer:
        plan = read_plan(folder)
        _require_all(plan, sorted(set(range(plan.parts)) - plan.done()), "missing")
        found = _Parts(plan)
        info = found.info()
        write_annotations(
            partial_folder(folder) / "run/ground_truth.json",
            (image for image, _ in found.explained()),
            found.annotations(),
            list(plan.info.model.outputs),
        )
        return writer.complete(info, found.boxes(), found.digests)


class _Parts:
    """All parts, checked; their heatmaps are moved to the run.

    Attributes:
        digests: The digest of each heatmap file by its name in the run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.digests: dict[str, str] = {}
        self._done = np.zeros(plan.images + 1, bool)
        self._files = np.zeros(plan.images + 1, "S16")
        self._skipped: dict[int, str] = {}
        self._heatmaps = 0
        self._made_by: dict[str, set[Any]] = {
            name: set() for name in ("layer", "precision", "determinism")
        }
        damaged = []
        for number in range(plan.parts):
            try:
                self._add(number)
            except UserError:
                damaged.append(number)
                plan.part_file(number).unlink(missing_ok=True)
        _require_all(plan, damaged, "damaged, and removed")
        sync_folder(partial_folder(plan.folder) / "run/heatmaps")

    def _add(self, number: int) -> None:
        moved = heatmap_file(partial_folder(self._plan.folder), number)
        original = self._plan.part_file(number, ".npz")
        # Out of reach of a worker that computes the part once more.
        if original.is_file():
            os.replace(original, moved)
        part = read_part(self._plan.part_file(number), moved, check=True)
        if part["heatmaps"]:
            self.digests[f"heatmaps/{moved.name}"] = file_digest(moved)
        self._done[part["images"]] = True
        if part["files"]:
            self._files[part["ids"]] = part["files"]
        self._skipped |= dict(part["skipped"])
        self._heatmaps += part["heatmaps"]
        for name, values in self._made_by.items():
            value = part[name]
            values.add(tuple(value) if isinstance(value, list) else value)

    def boxes(self) -> Iterator[Any]:
        """Yields the rows of boxes of each part."""
        for number in range(self._plan.parts):
            yield read_part(self._plan.part_file(number), Path())["boxes"]

    def explained(self) -> Iterator[Any]:
        """Yields the images that were explained, with their plan."""
        return (each for each in self._plan if self._done[each[0].id])

    def annotations(self) -> Iterator[Annotation]:
        """Yields the annotated objects of these images."""
        for image, planned in self.explained():
            for category, *box, difficult in planned.objects:
                yield image.id, int(category), np.array(box), bool(difficult), False

    def info(self) -> RunInfo:
        """The content of `run.json`."""
        plan, then = self._plan, self._plan.info
        layer, precision = (self._only(name) for name in ("layer", "precision"))
        names = {image.id: image.file_name for image, _ in plan if image.id in self._skipped}
        skipped = [*plan.skipped, *((names[i], why) for i, why in sorted(self._skipped.items()))]
        images = int(self._done.sum())
        if not images:
            name, reason = skipped[-1]
            raise UserError(
                f"None of the {plan.images} images could be explained. {name}: {reason}"
            )
        digests = (each.decode() for each in self._files[1:] if each)
        objects = sum(len(planned.objects) for _, planned in self.explained())
        return replace(
            then,
            configuration=replace(then.configuration, precision=precision),
            dataset=replace(then.dataset, files=joined_digest(digests)),
            model=replace(then.model, layer=layer),
            determinism=" ".join(sorted(self._made_by["determinism"])),
            counts=Counts(images, self._heatmaps, objects, len(skipped)),
            skipped=tuple(SkippedImage(name, why) for name, why in sorted(skipped)),
        )

    def _only(self, name: str) -> Any:
        values = self._made_by[name]
        if len(values) > 1:
            several = " and ".join(sorted(map(str, values)))
            raise UserError(
                f"The parts of {self._plan.folder} were made with {name} {several}. Plan anew with "
                f"--{name} and --force, for the same on all machines."
            )
        return next(iter(values))


def _require_all(plan: Plan, numbers: list[int], state: str) -> None:
    """Raises if there are such parts, with the commands that compute them."""
    if not numbers:
        return
    shards = [i for i in range(plan.shards) if set(plan.shard(i)) & set(numbers)]
    commands = "\n".join(
        f"kgradcam detect --resume {plan.folder} --shard {i + 1}/{plan.shards}"
        for i in shards[:_COMMANDS]
    )
    if others := shards[_COMMANDS:]:
        commands += f"\nand shards {_ranges([i + 1 for i in others])}"
    raise UserError(
        f"{len(numbers)} of {plan.parts} parts of {plan.folder} are {state}: "
        f"{_ranges(numbers)}. Compute them, and merge again:\n{commands}"
    )


def _ranges(numbers: list[int]) -> str:
    """Returns sorted numbers as text, `"0-2, 5"`."""
    ends = [i for i, each in enumerate(numbers) if numbers[i + 1 : i + 2] != [each + 1]]
    starts = [0, *(end + 1 for end in ends)]
    pairs = [(numbers[i], numbers[j]) for i, j in zip(starts, ends, strict=False)]
    return ", ".join(str(one) if one == other else f"{one}-{other}" for one, other in pairs)
