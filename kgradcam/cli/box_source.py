"""Reads the boxes that `evaluate`, `wsol` and `coco` measure: those of a run, or given ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgradcam.cli import options
from kgradcam.cli.output import note
from kgradcam.cli.parsing import box_rules, joined, whole_numbers
from kgradcam.errors import UsageError

_EITHER = "Give either RUN, or --detections FILE and --ground-truth FILE."


@dataclass(frozen=True)
class BoxSource:
    """The options that select boxes: of a run, or in files of another program."""

    run: options.OptionalRun = None
    detections: options.GivenDetections = None
    ground_truth: options.GivenTruth = None
    split: options.GivenSplit = None
    rows: options.Rows = "all"
    threshold: options.Thresholds = None
    radius: options.Radii = None
    boxes: options.Boxes = None
    box_options: options.TunedOptions = None

    def read(self, quiet: bool, grid: bool = False) -> Any:
        """Checks the options, and returns the `BoxTables`; `grid` allows several radii."""
        if (self.run is None) == (self.detections is None):
            raise UsageError(_EITHER)
        if self.run is not None:
            return self._of_run(self.run, quiet, grid)
        if self.detections is None or self.ground_truth is None:
            raise UsageError(_EITHER)
        if self.threshold or self.radius or self.boxes or self.box_options:
            raise UsageError(
                "--threshold, --radius, --boxes and --box-options need RUN: given detections have "
                "no heatmaps."
            )
        from kgradcam.evaluation.box_tables import given_boxes

        files = _read_files(self.detections, self.ground_truth, self.split)
        return given_boxes(*files).keep(self.rows)

    def _of_run(self, folder: Path, quiet: bool, grid: bool) -> Any:
        from kgradcam.evaluation.box_tables import boxes_of_run
        from kgradcam.evaluation.corrections import against
        from kgradcam.evaluation.tuning import read_choice
        from kgradcam.runs.run import Run

        if self.split is not None and self.ground_truth is None:
            raise UsageError("--split needs --ground-truth FOLDER: a run has its own split.")
        thresholds, radii = joined(self.threshold) or None, whole_numbers(self.radius)
        if radii and len(radii) > 1 and not grid:
            raise UsageError("Give one --radius: only `kgradcam evaluate` takes several.")
        if self.box_options and (thresholds or radii or self.boxes):
            raise UsageError("Give either --box-options, or --threshold, --radius and --boxes.")
        rows, boxes = self.rows, self.boxes
        # Before the run is opened, so that a wrong file is named at once.
        choice = None if self.box_options is None else read_choice(self.box_options)
        if choice is not None:
            thresholds, radii = [choice.threshold], [choice.radius]
            rows, boxes = choice.rows, choice.boxes
        run = Run(folder)
        if choice is not None and choice.chosen_on(run):
            note(f"Note: {self.box_options} was selected on the data it is scored on.")
        own = boxes in (None, run.options.rules)
        rules = run.options if own else box_rules(boxes or "")
        tables = boxes_of_run(run, thresholds, radii, rows, rules, quiet)
        if self.ground_truth is None:
            return tables
        truth = read_truth(self.ground_truth, self.split)
        return against(tables, truth, lambda line: note(line, quiet))


def read_truth(path: Path, split: str | None) -> Any:
    """Reads COCO JSON or a folder in VOC layout."""
    from kgradcam.runs import coco_files, voc_files

    if path.is_dir():
        return voc_files.read_voc_ground_truth(path, split)
    if split is not None:
        raise UsageError("--split needs a folder as --ground-truth.")
    return coco_files.read_ground_truth(path)


def _read_files(detections: Path, ground_truth: Path, split: str | None) -> tuple[Any, Any]:
    from kgradcam.runs import coco_files, voc_files

    in_voc_format = detections.is_dir() or detections.suffix.lower() == ".txt"
    files = voc_files.voc_result_files(detections) if in_voc_format else []
    if ground_truth.is_dir() and split is None and files:
        split = voc_files.split_of(files[0], ground_truth)
    truth = read_truth(ground_truth, split)
    if in_voc_format:
        truth, found = voc_files.read_voc_detections(files, truth)
    else:
        found = coco_files.read_detections(detections, truth)
    return truth, found
