"""Chooses box options on one split, to be used on another."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kgradcam import progress
from kgradcam.boxes.options import DEFAULT_OPTIONS
from kgradcam.errors import UserError
from kgradcam.evaluation.grid import HEATMAP, Evaluation, evaluate_run, parse_metric
from kgradcam.files import write_atomically
from kgradcam.metrics.average_precision import Protocol
from kgradcam.runs.run import Run

ROWS = ("all", "largest", "top")


@dataclass(frozen=True)
class BoxChoice:
    """Box options, and where they were chosen.

    Attributes:
        boxes: The rules that boxes are drawn by; see `boxes.BoxOptions`.
        radius: The smoothing radius, in pixels.
        threshold: The heat threshold.
        rows: Which boxes of each image and class count; see `records.keep_rows`.
        metric: What was the highest with them, as `"ap@0.5"`.
        protocol: The name of the protocol that it was measured by.
        value: How high, 0 to 1.
        dataset: The dataset they were chosen on.
        split: Its split.
        images: A fingerprint of its images.
    """

    boxes: str
    radius: int
    threshold: float
    rows: str
    metric: str
    protocol: str
    value: float
    dataset: str
    split: str
    images: str

    def chosen_on(self, run: Run) -> bool:
        """Whether they were chosen on the very images of a run."""
        return self.images == fingerprint(run)


def fingerprint(run: Run) -> str:
    """Returns what tells the images of one run from those of another."""
    names = sorted(image.file_name for image in run.ground_truth.images)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def tune(
    run: Run,
    metric: str,
    thresholds: Sequence[float],
    radii: Sequence[int],
    protocol: Protocol,
    quiet: bool = True,
) -> tuple[BoxChoice, Evaluation]:
    """Finds the box options with the highest measure on a run.

    Args:
        run: The run, on a split that is not the one to report on.
        metric: What to maximize, as `"ap@0.5"`: in the mean over the classes.
        thresholds: Heat thresholds to try.
        radii: Smoothing radii to try.
        protocol: How matching and AP are defined.
        quiet: Shows no progress on stderr.

    Returns:
        The choice, the first of equals; and the evaluation of the whole grid with its rows.
    """
    _, iou = parse_metric(metric)
    tried = []
    with progress.bar("boxes", run.info["counts"]["heatmaps"], "heatmaps", quiet) as advance:
        drawn = run.detections(thresholds, radii, advance=advance)
    for rows in ROWS:
        evaluation = evaluate_run(
            run, thresholds, [iou], protocol, rows, radii=radii, drawn=drawn, quiet=quiet
        )
        options = dict.fromkeys(row.option for row in evaluation.rows if row.boxes == HEATMAP)
        tried += [(evaluation.value(metric, option), option, evaluation) for option in options]
    # Undefined measures come last.
    value, (_, radius, threshold), evaluation = max(
        tried, key=lambda each: each[0] if each[0] == each[0] else -1.0
    )
    assert radius is not None
    assert threshold is not None
    choice = BoxChoice(
        boxes=run.options.rules,
        radius=radius,
        threshold=threshold,
        rows=evaluation.source["rows"],
        metric=metric,
        protocol=protocol.name,
        value=value,
        dataset=run.info["dataset"]["name"],
        split=run.info["dataset"]["split"],
        images=fingerprint(run),
    )
    return choice, evaluation


def write_choice(path: Path, choice: BoxChoice) -> None:
    """Writes a choice as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(choice), indent=2) + "\n")


def read_choice(path: Path) -> BoxChoice:
    """Reads a choice.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    try:
        choice = BoxChoice(**json.loads(path.read_text("utf-8")))
        in_range = 0 <= float(choice.threshold) <= 1 and int(choice.radius) >= 0
    except FileNotFoundError:
        raise UserError(f"No file {path}. `kgradcam tune RUN --out {path}` makes one.") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} holds no box options: {error}") from error
    if not in_range or choice.rows not in ROWS or choice.boxes not in DEFAULT_OPTIONS:
        raise UserError(f"{path} holds no box options: {choice}")
    return choice
