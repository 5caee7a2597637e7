"""`kgradcam compare`: compares runs on the same images."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.groups import ResultOptions
from kgradcam.cli.output import note
from kgradcam.cli.parsing import joined, whole_numbers
from kgradcam.errors import UsageError


def compare(
    *,
    runs: Annotated[list[Path], typer.Argument(help="Runs on the same images.", metavar="RUN...")],
    threshold: options.Thresholds = None,
    radius: options.Radii = None,
    iou: options.Ious = None,
    protocol: options.Protocol = "voc2010",
    bootstrap: Annotated[
        int, typer.Option(help="Number of paired bootstrap samples.", min=10)
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed of the samples.", min=0)] = 0,
    max_pixels: options.MaxPixels = None,
    results: ResultOptions,
    quiet: options.Quiet = False,
) -> None:
    """Compare the AP of runs on the same images.

    Differences from the first run have confidence intervals.

    Example:
        kgradcam compare runs/gradcam runs/layercam --threshold 0.25 --iou 0.5
    """
    from kgradcam.evaluation.comparison import compare_runs
    from kgradcam.metrics.protocol import find_protocol
    from kgradcam.runs.run import Run

    if len(runs) < 2:
        raise UsageError("Give two runs or more.")
    result = compare_runs(
        [Run(folder) for folder in runs],
        joined(iou) or [0.3, 0.4, 0.5],
        find_protocol(protocol),
        joined(threshold) or None,
        whole_numbers(radius),
        bootstrap,
        seed,
    )
    results.print(result, quiet)
    if len(joined(threshold)) != 1:
        note("Each run takes its best threshold, selected on the data it is scored on.", quiet)
