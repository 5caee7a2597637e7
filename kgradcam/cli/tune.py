"""`kgradcam tune`: chooses box options on one run, for use on another."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note, require_absent
from kgradcam.cli.parsing import joined, numbers, whole_numbers


def tune(
    run: options.RunFolder,
    out: Annotated[Path, typer.Option(help="File of box options to write.", metavar="FILE.json")],
    metric: Annotated[
        str, typer.Option(help="Measure to maximize, as the mean over classes.", metavar="ap@IOU")
    ] = "ap@0.5",
    threshold: options.Thresholds = None,
    radius: options.Radii = None,
    protocol: options.Protocol = "voc2010",
    max_pixels: options.MaxPixels = None,
    as_json: options.AsJson = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Choose box options on one run, to evaluate another.

    Example:
        kgradcam tune runs/train --metric ap@0.5 --out options.json
    """
    from kgradcam.evaluation.tuning import tune as choose
    from kgradcam.evaluation.tuning import write_choice
    from kgradcam.metrics.protocol import find_protocol
    from kgradcam.runs.run import Run

    inputs = (run / "run.json", run / "ground_truth.json", *run.glob("detections-*.json"))
    require_absent(out, force, *inputs, suffixes=(".json",))
    thresholds = joined(threshold) or numbers("0.01:0.60:0.01")
    choice, _ = choose(
        Run(run),
        metric,
        thresholds,
        whole_numbers(radius) or [0, 5, 10, 20, 40],
        find_protocol(protocol),
        quiet,
    )
    write_choice(out, choice)
    note(
        f"threshold {choice.threshold:g}, radius {choice.radius}, rows {choice.rows}: {metric} "
        f"{100 * choice.value:.2f} % on {choice.dataset} {choice.split}",
        quiet,
    )
    typer.echo(out.read_text("utf-8").rstrip() if as_json else out)
