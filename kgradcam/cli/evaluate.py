"""`kgradcam evaluate`: measures the AP and recall of a run or of given detections."""

import math
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.box_source import BoxSource
from kgradcam.cli.groups import ResultOptions
from kgradcam.cli.output import note
from kgradcam.cli.parsing import joined
from kgradcam.errors import UsageError, UserError


def evaluate(
    source: BoxSource,
    *,
    iou: options.Ious = None,
    protocol: options.Protocol = "voc2010",
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines", help="Also measure the full frame, a centre box and random heatmaps."
        ),
    ] = False,
    bootstrap: Annotated[
        int, typer.Option(help="Bootstrap samples for 95 % intervals; 0 for none.", min=0)
    ] = 0,
    seed: Annotated[
        int,
        typer.Option(help="Random seed of bootstrap samples and random heatmaps.", min=0),
    ] = 0,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with 1 if the best mean is lower: 0.4 or 40%. Repeat for several.",
            metavar="ap@IOU=VALUE",
            show_default=False,
        ),
    ] = None,
    max_pixels: options.MaxPixels = None,
    results: ResultOptions,
    quiet: options.Quiet = False,
) -> None:
    """Measure the AP and recall of a run, or of other boxes.

    The boxes may come from any program, as files.

    Example:
        kgradcam evaluate runs/cat --thresholds 0.05:0.50:0.05 --radii 0,20 --out runs/ap
    """
    from kgradcam.evaluation.grid import evaluate_boxes
    from kgradcam.metrics.protocol import find_protocol

    rules, ious = find_protocol(protocol), joined(iou) or [0.3, 0.4, 0.5]
    demands = [_parse_demand(each) for each in fail_under or ()]
    boxes = source.read(quiet, grid=True)
    result = evaluate_boxes(
        boxes, ious, rules, baselines=baselines, bootstrap=bootstrap, seed=seed, quiet=quiet
    )
    results.print(result, quiet)
    if not len(boxes.ground_truth.boxes):
        note(
            "Nothing is annotated with a box, so there is no AP. --ground-truth takes boxes that "
            "people have corrected.",
            quiet,
        )
    if result.chosen_on_the_test:
        _, best_radius, best_threshold = result.best
        note(
            f"Best: threshold {best_threshold:g}, radius {best_radius}; selected on the data it is "
            "scored on. `kgradcam tune` selects on another split.",
            quiet,
        )
    for metric, least in demands:
        value = result.value(metric)
        if not value >= least:  # a NaN fails too
            raise UserError(f"{metric} is {100 * value:.2f} %, under {100 * least:g} %.")


def _parse_demand(text: str) -> tuple[str, float]:
    """Parses a value of `--fail-under`: a metric and its least value in [0, 1]."""
    metric, _, least = text.partition("=")
    try:
        wanted = float(least.removesuffix("%")) / (100 if least.endswith("%") else 1)
    except ValueError:
        wanted = math.nan
    if not 0 <= wanted <= 1:
        raise UsageError(
            "--fail-under must have the form ap@0.5=0.4 or ap@0.5=40%, at most 1 or 100%. "
            f"Received: {text!r}."
        )
    from kgradcam.evaluation.results import parse_metric

    parse_metric(metric)
    return metric, wanted
