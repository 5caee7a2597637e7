"""`kgradcam coco`: measures AP and AR with pycocotools."""

from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.box_source import BoxSource
from kgradcam.cli.groups import ResultOptions


def coco(
    source: BoxSource,
    *,
    ignore_difficult: Annotated[
        bool,
        typer.Option(
            "--ignore-difficult",
            help="Treat difficult objects as COCO's crowds, which do not count.",
        ),
    ] = False,
    max_pixels: options.MaxPixels = None,
    results: ResultOptions,
    quiet: options.Quiet = False,
) -> None:
    """Measure COCO's AP and AR with pycocotools.

    Example:
        kgradcam coco runs/cat --threshold 0.25
    """
    from kgradcam.evaluation.wsol_and_coco import coco_of_boxes

    results.print(coco_of_boxes(source.read(quiet), ignore_difficult), quiet)
