"""Reads the boxes that `evaluate`, `wsol` and `coco` measure: those of a run, or given ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kgradcam.cli.output import note
from kgradcam.cli.parsing import Numbers, box_rules, joined, whole_numbers
from kgradcam.errors import UsageError


def read_boxes(
    run: Path | None,
    detections: Path | None,
    ground_truth: Path | None,
    split: str | None,
    rows: str,
    threshold: Sequence[Numbers] | None,
    radius: Sequence[Numbers] | None,
    boxes: str | None,
    tuned: Path | None,
    quiet: bool,
    grid: bool = False,
) -> Any:
    """Checks the options that select boxes, and returns their `BoxTables`.

    `grid` allows several smoothing radii.
    """
    from kgradcam.evaluation.box_tables import boxes_of_run, given_boxes
    from kgradcam.evaluation.corrections import against
    from kgradcam.evaluation.tuning import read_choice
    from kgradcam.runs.run import Run

    given = detections is not None and ground_truth is not None
    if (run is None) != given or (run is None and not given) or (run and detections):
        raise UsageError("Give either RUN, or --detections FILE and --ground-truth FILE.")
    if detections is not None and ground_truth is not None:
        if threshold or radius or boxes or tuned:
            raise UsageError(
                "--threshold, --radius, --boxes and --box-options need RUN: given detections have "
                "no heatmaps."
            )
        return given_boxes(*_read_files(detections, ground_truth, split)).keep(rows)
    assert run is not None
    if split is not None and ground_truth is None:
        raise UsageError("--split needs --ground-truth FOLDER: a run has its own split.")
    thresholds, radii = joined(threshold) or None, whole_numbers(radius)
    if radii and len(radii) > 1 and not grid:
        raise UsageError("Give one --radius: only `kgradcam evaluate` takes several.")
    choice = None
    if tuned is not None:
        if threshold or radius or boxes:
            raise UsageError("Give either --box-options, or --threshold, --radius and --boxes.")
        choice = read_choice(tuned)
        thresholds, radii = [choice.threshold], [choice.radius]
        rows, boxes = choice.rows, choice.boxes
    opened = Run(run)
    if choice is not None and choice.chosen_on(opened):
        note(f"Note: {tuned} was selected on the data it is scored on.")
    own = boxes in (None, opened.options.rules)
    options = opened.options if own else box_rules(boxes or "")
    tables = boxes_of_run(opened, thresholds, radii, rows, options, quiet)
    if ground_truth is None:
        return tables
    truth = read_truth(ground_truth, split)
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
