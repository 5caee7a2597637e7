"""`kgradcam coco`: measures AP and AR with pycocotools."""

from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.box_source import read_boxes
from kgradcam.cli.output import print_result, require_absent
from kgradcam.cli.parsing import output_form


def coco(
    run: options.OptionalRun = None,
    detections: options.GivenDetections = None,
    ground_truth: options.GivenTruth = None,
    split: options.GivenSplit = None,
    rows: options.Rows = "all",
    threshold: options.Thresholds = None,
    radius: options.Radii = None,
    boxes: options.Boxes = None,
    box_options: options.TunedOptions = None,
    ignore_difficult: Annotated[
        bool,
        typer.Option(
            "--ignore-difficult",
            help="Treat difficult objects as COCO's crowds, which do not count.",
        ),
    ] = False,
    max_pixels: options.MaxPixels = None,
    out: options.ResultFolder = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
    as_markdown: options.AsMarkdown = False,
    as_latex: options.AsLatex = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure COCO's AP and AR with pycocotools.

    Example:
        kgradcam coco runs/cat --threshold 0.25
    """
    from kgradcam.evaluation.wsol_and_coco import coco_of_boxes

    form = output_form(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    require_absent(out and out / "evaluation.json", force)
    source = read_boxes(
        run, detections, ground_truth, split, rows, threshold, radius, boxes, box_options, quiet
    )
    print_result(coco_of_boxes(source, ignore_difficult), form, out)
