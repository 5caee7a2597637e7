"""Chooses box options on one split, for use on another."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kgradcam.boxes.options import DEFAULT_OPTIONS, MAX_RADIUS
from kgradcam.errors import UserError
from kgradcam.evaluation.box_tables import boxes_of_run
from kgradcam.evaluation.grid import measure_option, result_of
from kgradcam.evaluation.results import Result, parse_metric
from kgradcam.evaluation.rows import Row
from kgradcam.files import read_bytes, write_atomically
from kgradcam.metrics.protocol import Protocol
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import convert
from kgradcam.runs.tables import keep_rows

ROWS = ("all", "largest", "top")


_MAX_BYTES = 2**20


@dataclass(frozen=True)
class BoxChoice:
    """Box options, and the data they were chosen on.

    Attributes:
        boxes: The name of the box rules, a key of `boxes.levels.BOX_RULES`.
        radius: Smoothing radius in pixels.
        threshold: Heat threshold in [0, 1].
        rows: The boxes of each image and class that count; see `runs.tables.keep_rows`.
        metric: The measure they maximize, such as `"ap@0.5"`.
        protocol: The name of its protocol.
        value: Its value, in [0, 1].
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
        """Returns whether they were chosen on exactly the images of a run."""
        return self.images == fingerprint(run)


def fingerprint(run: Run) -> str:
    """Returns a hash of the image names of a run, 16 hexadecimal digits."""
    names = sorted(image.file_name for image in run.ground_truth.images)
    return hashlib.sha256("\n".join(names).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def tune(
    run: Run,
    metric: str,
    thresholds: Sequence[float],
    radii: Sequence[int],
    protocol: Protocol,
    quiet: bool = True,
) -> tuple[BoxChoice, Result]:
    """Finds the box options with the highest measure on a run.

    Args:
        run: A run on another split than the one to report on.
        metric: The measure to maximize, such as `"ap@0.5"`, as the mean over classes.
        thresholds: Candidate heat thresholds in [0, 1].
        radii: Candidate smoothing radii in pixels.
        protocol: The rules of matching and of AP.
        quiet: Shows no progress on stderr.

    Returns:
        The choice, the first of equals; and the result of its grid of thresholds and radii.
    """
    _, iou = parse_metric(metric)
    boxes = boxes_of_run(run, thresholds, radii, quiet=quiet)
    image_ids = [image.id for image in boxes.ground_truth.images]
    found: dict[str, list[Row]] = {rows: [] for rows in ROWS}
    # Boxes are drawn once for an option; a choice of rows needs no others.
    for option, table in boxes.each(quiet):
        for rows in ROWS:
            kept = keep_rows(table, rows)
            found[rows] += measure_option(
                boxes.ground_truth, option, kept, [iou], protocol, image_ids
            )
    tried = []
    for rows in ROWS:
        result = result_of(boxes.keep(rows), found[rows], protocol)
        tried += [(result.value(metric, option), option, result) for option in boxes.tables]
    value, (_, radius, threshold), result = max(
        tried, key=lambda each: -1.0 if math.isnan(each[0]) else each[0]
    )
    assert radius is not None
    assert threshold is not None
    choice = BoxChoice(
        boxes=run.options.rules,
        radius=radius,
        threshold=threshold,
        rows=result.source["rows"],
        metric=metric,
        protocol=protocol.name,
        value=value,
        dataset=run.info.dataset.name,
        split=run.info.split,
        images=fingerprint(run),
    )
    return choice, result


def write_choice(path: Path, choice: BoxChoice) -> None:
    """Writes a choice as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(choice), indent=2) + "\n")


def read_choice(path: Path) -> BoxChoice:
    """Reads a choice.

    Raises:
        UserError: The file is missing, or is not a choice.
    """
    try:
        content = json.loads(read_bytes(path, _MAX_BYTES))
        choice: BoxChoice = convert(BoxChoice, content, "box options")
    except FileNotFoundError:
        raise UserError(f"No file {path}. `kgradcam tune RUN --out {path}` writes one.") from None
    except UserError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} has no valid box options: {error}") from error
    in_range = 0 <= choice.threshold <= 1 and 0 <= choice.radius <= MAX_RADIUS
    if not in_range or choice.rows not in ROWS or choice.boxes not in DEFAULT_OPTIONS:
        raise UserError(f"{path} has no valid box options: {choice}")
    return choice
