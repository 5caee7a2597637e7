"""The boxes that `evaluate`, `wsol` and `coco` measure: those of a run, or given detections."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam.cli.parsing import Numbers, box_rules, joined, whole_numbers
from kgradcam.errors import UsageError

OptionalRun = Annotated[
    Path | None,
    typer.Argument(help="A run folder of detect.", metavar="[RUN]", show_default=False),
]
GivenDetections = Annotated[
    Path | None,
    typer.Option(
        "--detections",
        help="Instead of RUN: detections as COCO JSON, or a file comp4_det_*.txt of the VOC "
        "devkit, or a folder of them.",
    ),
]
GivenTruth = Annotated[
    Path | None,
    typer.Option("--ground-truth", help="Their ground truth: COCO JSON or a folder in VOC layout."),
]
GivenSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Split of a folder given as --ground-truth. Default: that in the names of the "
        "detections, else test, else all.",
    ),
]
Rows = Annotated[
    str,
    typer.Option(
        help="Boxes of each image and class that count: all, the last, the largest, or the most "
        "confident.",
        metavar="all|last|largest|top",
    ),
]
Boxes = Annotated[
    str | None,
    typer.Option(
        help="Rules that turn a heatmap into boxes.",
        metavar="levels|single-threshold",
        show_default="those of the run",
    ),
]
TunedOptions = Annotated[
    Path | None,
    typer.Option("--box-options", help="Box options that tune has written.", metavar="FILE"),
]


@dataclass(frozen=True)
class RunBoxes:
    """The boxes of a run with some options.

    Attributes:
        run: The `Run`.
        thresholds: Heat thresholds; `None` for the default.
        radii: Smoothing radii in pixels; `None` for the default.
        rows: The boxes of each image and class that count.
        options: The `BoxOptions`.
        tuned_here: Whether the options were tuned on the images of this run.
    """

    run: Any
    thresholds: list[float] | None
    radii: list[int] | None
    rows: str
    options: Any
    tuned_here: bool

    @property
    def radius(self) -> int | None:
        """The first smoothing radius, for measures without a grid."""
        return self.radii[0] if self.radii else None


@dataclass(frozen=True)
class GivenBoxes:
    """Detections and ground truth read from COCO files."""

    ground_truth: Any
    detections: Any


def read_boxes(
    run: Path | None,
    detections: Path | None,
    ground_truth: Path | None,
    rows: str,
    threshold: Sequence[Numbers] | None,
    radius: Sequence[Numbers] | None,
    boxes: str | None,
    tuned: Path | None,
    grid: bool = False,
    split: str | None = None,
) -> RunBoxes | GivenBoxes:
    """Checks the options that select boxes, and opens their files.

    `grid` allows several smoothing radii.
    """
    from kgradcam.evaluation.tuning import read_choice
    from kgradcam.runs.run import Run

    given = detections is not None and ground_truth is not None
    if (run is None) != given or (detections is None) != (ground_truth is None):
        raise UsageError("Give either RUN, or --detections FILE and --ground-truth FILE.")
    if run is None:
        if threshold or radius or boxes or tuned:
            raise UsageError(
                "--threshold, --radius, --boxes and --box-options need RUN: given detections have "
                "no heatmaps."
            )
        assert detections is not None
        assert ground_truth is not None
        return _read_files(detections, ground_truth, rows, split)
    if split is not None:
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
    own = boxes in (None, opened.options.rules)
    options = opened.options if own else box_rules(boxes or "")
    tuned_here = choice is not None and choice.chosen_on(opened)
    return RunBoxes(opened, thresholds, radii, rows, options, tuned_here)


def _read_files(detections: Path, ground_truth: Path, rows: str, split: str | None) -> GivenBoxes:
    from kgradcam.runs import coco_files, voc_files
    from kgradcam.runs.tables import keep_rows

    in_voc_format = detections.is_dir() or detections.suffix.lower() == ".txt"
    files = voc_files.voc_result_files(detections) if in_voc_format else []
    if ground_truth.is_dir():
        if split is None and files:
            split = voc_files.split_of(files[0], ground_truth)
        truth = voc_files.read_voc_ground_truth(ground_truth, split)
    elif split is not None:
        raise UsageError("--split needs a folder as --ground-truth.")
    else:
        truth = coco_files.read_ground_truth(ground_truth)
    if in_voc_format:
        truth, found = voc_files.read_voc_detections(files, truth)
    else:
        found = coco_files.read_detections(detections, truth)
    return GivenBoxes(truth, keep_rows(found, rows))
