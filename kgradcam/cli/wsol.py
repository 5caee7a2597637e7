"""`kgradcam wsol`: measures weakly supervised localization."""

from kgradcam.cli import options
from kgradcam.cli.box_source import read_boxes
from kgradcam.cli.output import print_result, require_absent
from kgradcam.cli.parsing import output_form


def wsol(
    run: options.OptionalRun = None,
    detections: options.GivenDetections = None,
    ground_truth: options.GivenTruth = None,
    split: options.GivenSplit = None,
    rows: options.Rows = "all",
    threshold: options.Thresholds = None,
    radius: options.Radii = None,
    boxes: options.Boxes = None,
    box_options: options.TunedOptions = None,
    max_pixels: options.MaxPixels = None,
    out: options.ResultFolder = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
    as_markdown: options.AsMarkdown = False,
    as_latex: options.AsLatex = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure CorLoc, MaxBoxAcc, pointing game and PxAP.

    These are the measures of weakly supervised object localization.

    Example:
        kgradcam wsol runs/cat
    """
    from kgradcam.evaluation.wsol_and_coco import wsol_of_boxes

    form = output_form(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    require_absent(out and out / "evaluation.json", force)
    source = read_boxes(
        run, detections, ground_truth, split, rows, threshold, radius, boxes, box_options, quiet
    )
    print_result(wsol_of_boxes(source, quiet), form, out)
