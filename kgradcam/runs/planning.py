"""From a dataset to the plan of a run, in memory that does not grow with the dataset."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kgradcam import progress
from kgradcam.data.examples import Example
from kgradcam.data.sources import image_folder
from kgradcam.data.splits import summarize
from kgradcam.errors import UsageError
from kgradcam.heatmaps.methods import find_method
from kgradcam.models.classifier import Classifier
from kgradcam.models.network import require_model
from kgradcam.runs.configuration import PREDICTED, Configuration
from kgradcam.runs.describing import describe, describe_model, draw, stop_if_strict, warn_if_large
from kgradcam.runs.explaining import load_model, make_explainer
from kgradcam.runs.partial_run import Start, partial_folder
from kgradcam.runs.plan import Plan, PlannedImage, write_plan
from kgradcam.runs.run_classes import run_targets
from kgradcam.runs.run_dataset import stream_configured
from kgradcam.runs.run_writer import Report, write_run
from kgradcam.runs.runs_on_stores import planned_locally
from kgradcam.storage import is_remote, place


def make_plan(
    configuration: Configuration,
    folder: Path,
    shards: int,
    *,
    data_dir: Path | None = None,
    force: bool = False,
    quiet: bool = True,
    report: Report = lambda line: None,
    opened: Classifier | None = None,
) -> Plan:
    """Reads the annotations and image headers of a dataset once, and writes the plan of a run.

    Args:
        configuration: The options.
        folder: The run folder to be; it appears when the parts are merged.
        shards: The number of shards, which affects no result.
        data_dir: The folder of tensorflow-datasets.
        force: Replaces an existing run, or an unfinished one.
        quiet: Shows no progress on stderr.
        report: Called with a line of text on the layout, and on removed leftovers.
        opened: The model, if `open_model` has loaded it already.

    Raises:
        UserError: As `detect` does.
    """
    if shards < 1:
        raise UsageError(f"shards must be at least 1. Received: {shards}.")
    find_method(configuration.method)
    require_model(configuration.model)
    with (
        planned_locally(folder, force) as local,
        write_run(local, force=force, report=report),
    ):
        split = stream_configured(configuration, data_dir, quiet)
        if not split.annotated:
            configuration = replace(configuration, presence=PREDICTED)
        with progress.step(f"loading {configuration.model}", quiet):
            classifier = load_model(configuration, opened)
            # An unknown layer is reported now. Workers choose the precision that they have.
            explainer = make_explainer(replace(configuration, precision="float32"), classifier)
        spool = partial_folder(local) / "images.tmp"
        relative = _relative_to(image_folder(configuration.dataset, data_dir))
        with gzip.open(spool, "wt", 1, encoding="utf-8") as file:
            summary = summarize(
                split, lambda each: print(json.dumps(_row(each, relative)), file=file)
            )
        if not quiet:
            report(f"{summary.name} is {summary.description}: {summary.images} images.")
        stop_if_strict(configuration, summary.skipped)
        targets = run_targets(configuration, summary, classifier)
        numbers = {name: i for i, name in enumerate(targets, start=1)}
        chosen = _Chosen(spool, numbers, configuration)
        model = describe_model(classifier, explainer.layer, targets)
        info = describe(configuration, summary, "", model, folder)
        plan = write_plan(
            local, Start(info, force, data_dir), shards, chosen.limited(), summary.skipped
        )
        spool.unlink()
        if configuration.image_size is None:
            warn_if_large(*chosen.largest)
    return replace(plan, folder=place(folder))


def _row(example: Example, relative: Callable[[Path], str]) -> list[Any]:
    objects = example.objects
    return [
        example.file_name,
        example.width,
        example.height,
        relative(example.path) if example.path else None,
        None if example.path else example.index,
        objects.names,
        objects.boxes.tolist(),
        objects.difficult.tolist(),
        objects.labels,
    ]


def _relative_to(folder: Path | None) -> Callable[[Path], str]:
    """Returns a function from the path of an image to that from the folder of its dataset."""
    prefix = os.path.join(str(folder), "")

    def relative(path: Path) -> str:
        text = str(path)
        if text.startswith(prefix):
            return Path(text[len(prefix) :]).as_posix()
        return text if is_remote(path) else Path(os.path.relpath(text, folder)).as_posix()

    return relative


class _Chosen:
    """The images that a run explains, from the rows of the whole split."""

    def __init__(self, spool: Path, numbers: dict[str, int], configuration: Configuration) -> None:
        self._spool, self._numbers, self._configuration = spool, numbers, configuration
        self.largest = ("", 0, 0)

    def limited(self) -> Iterator[PlannedImage]:
        """Yields those that `limit` draws."""
        drawn = None
        if self._configuration.limit is not None:
            drawn = draw(sum(1 for _ in self._all()), self._configuration)
        wanted = None if drawn is None else set(drawn)
        for i, each in enumerate(self._all()):
            if wanted is None or i in wanted:
                if each.width * each.height > self.largest[1] * self.largest[2]:
                    self.largest = each[:3]
                yield each

    def _all(self) -> Iterator[PlannedImage]:
        numbers, predicted = self._numbers, self._configuration.presence == PREDICTED
        with gzip.open(self._spool, "rt", encoding="utf-8") as file:
            for line in file:
                name, width, height, path, record, *annotated = json.loads(line)
                names, boxes, difficult, labels = annotated
                objects = [
                    [numbers[name], *box, int(flag)]
                    for name, box, flag in zip(names, boxes, difficult, strict=True)
                    if name in numbers
                ]
                on_image = [numbers[name] for name in labels if name in numbers]
                if predicted or objects or on_image:
                    yield PlannedImage(name, width, height, path, record, objects, on_image)
