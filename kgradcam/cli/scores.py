"""`kgradcam scores`: the precision and recall of the boxes above each score."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam.cli import options
from kgradcam.cli.box_source import BoxSource
from kgradcam.cli.output import print_json, print_table


def scores(
    run: options.RunFolder,
    ground_truth: options.CorrectedTruth = None,
    iou: Annotated[
        float, typer.Option(help="IoU from which a box is right.", min=0.0, max=1.0)
    ] = 0.5,
    min_precision: Annotated[
        float | None,
        typer.Option(
            help="Print only the lowest score whose boxes have this precision.",
            min=0.0,
            max=1.0,
            show_default=False,
        ),
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Count the right boxes of a labelled run by score.

    Example:
        kgradcam scores runs/labelled --min-precision 0.9
    """
    curve = curve_of(run, ground_truth, iou, quiet)
    if min_precision is not None:
        score = curve.lowest_score(min_precision)
        if as_json:
            boxes, precision, recall = curve.at(score)
            print_json({"score": score, "boxes": boxes, "precision": precision, "recall": recall})
        else:
            typer.echo(f"{score:.4f}")
        return
    points = [(step / 20, *curve.at(step / 20)) for step in range(20)]
    points = [each for each in points if each[1]]
    if as_json:
        names = ("score", "boxes", "precision", "recall")
        print_json([dict(zip(names, each, strict=True)) for each in points])
        return
    print_table(
        f"Boxes at IoU {iou:g} from each score on",
        ["score", "boxes", "right %", "found %"],
        [
            [f"{score:.2f}", str(boxes), f"{100 * precision:.1f}", f"{100 * recall:.1f}"]
            for score, boxes, precision, recall in points
        ],
    )


def curve_of(run: Path, ground_truth: Path | None, iou: float, quiet: bool) -> Any:
    """Returns the `ScorePrecision` of a run at its highest threshold."""
    from kgradcam.evaluation.score_precision import score_precision

    tables = BoxSource(run=run, ground_truth=ground_truth).read(quiet)
    detections = tables.tables[max(tables.tables, key=lambda option: option[2])]
    return score_precision(tables.ground_truth, detections, iou)
