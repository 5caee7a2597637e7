"""`kgradcam wsol`: measures weakly supervised localization."""

from kgradcam.cli.box_source import (
    Boxes,
    GivenBoxes,
    GivenDetections,
    GivenSplit,
    GivenTruth,
    OptionalRun,
    Rows,
    TunedOptions,
    read_boxes,
)
from kgradcam.cli.options import (
    AsCsv,
    AsJson,
    AsMarkdown,
    Force,
    MaxPixels,
    Quiet,
    Radii,
    ResultFolder,
    Thresholds,
)
from kgradcam.cli.output import print_result, require_absent, write_result
from kgradcam.cli.parsing import output_form


def wsol(
    run: OptionalRun = None,
    detections: GivenDetections = None,
    ground_truth: GivenTruth = None,
    split: GivenSplit = None,
    rows: Rows = "all",
    threshold: Thresholds = None,
    radius: Radii = None,
    boxes: Boxes = None,
    box_options: TunedOptions = None,
    max_pixels: MaxPixels = None,
    out: ResultFolder = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    as_markdown: AsMarkdown = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure weakly supervised localization: CorLoc, MaxBoxAcc, pointing game, PxAP.

    [dim]kgradcam wsol runs/cat[/dim]
    """
    from kgradcam.evaluation.wsol_and_coco import wsol_of_detections, wsol_of_run

    form = output_form(json=as_json, csv=as_csv, markdown=as_markdown)
    source = read_boxes(
        run, detections, ground_truth, rows, threshold, radius, boxes, box_options, split=split
    )
    if out is not None:
        require_absent(out / "evaluation.json", force)
    if isinstance(source, GivenBoxes):
        result = wsol_of_detections(source.ground_truth, source.detections)
    else:
        result = wsol_of_run(
            source.run, source.thresholds, source.radius, source.rows, source.options, quiet
        )
    print_result(result, form)
    if out is not None:
        write_result(out, result)
