"""`kgradcam evaluate`: measures a run or given detections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam.cli.options import (
    AsJson,
    AsMarkdown,
    DataDir,
    Force,
    Ious,
    MaxPixels,
    Protocol,
    Quiet,
    Radii,
    Thresholds,
    TrustModel,
)
from kgradcam.cli.output import note, print_result, require_absent
from kgradcam.cli.parsing import (
    box_rules,
    joined,
    output_form,
    protocol_rules,
    refuse,
    whole_numbers,
)
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UsageError, UserError


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A folder that detect has written.", metavar="[RUN]", show_default=False
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(help="Instead of RUN: COCO results (.json)."),
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Their ground truth: COCO (.json).")
    ] = None,
    rows: Annotated[
        str,
        typer.Option(
            help="Which boxes of each image and class count: all, the last, the largest, or the "
            "most confident.",
            metavar="all|last|largest|top",
        ),
    ] = "all",
    threshold: Thresholds = None,
    radius: Radii = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            help="Draw the boxes by these rules.",
            metavar="levels|single-threshold",
            show_default="as the run",
        ),
    ] = None,
    box_options: Annotated[
        Path | None,
        typer.Option(help="Rules, threshold, radius and rows that tune chose.", metavar="FILE"),
    ] = None,
    iou: Ious = None,
    protocol: Protocol = "voc2010",
    difficult: Annotated[
        str | None,
        typer.Option(
            help="Whether difficult objects count.",
            metavar="ignore|count",
            show_default="as the protocol",
        ),
    ] = None,
    ap: Annotated[
        str | None,
        typer.Option(
            help="At how many recalls precision is taken.",
            metavar="11|area|101",
            show_default="as the protocol",
        ),
    ] = None,
    inclusive: Annotated[
        bool | None,
        typer.Option(
            "--inclusive/--exclusive",
            help="Whether an overlap equal to --iou suffices.",
            show_default="as the protocol",
        ),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(
            help="Whether a box has a second choice.",
            metavar="devkit|coco",
            show_default="as the protocol",
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also score the full frame, a centre box and random heatmaps.",
        ),
    ] = False,
    bootstrap: Annotated[
        int, typer.Option(help="Samples of the images to draw for intervals.", min=0)
    ] = 0,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with 1 if the best mean is lower; repeat.",
            metavar="ap@IOU=VALUE",
            show_default=False,
        ),
    ] = None,
    explanation_metrics: Annotated[
        bool,
        typer.Option(
            "--explanation-metrics",
            help="Instead of AP: how faithful the heatmaps are to the model, and where their heat "
            "is. It runs the model again.",
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(help="For --explanation-metrics: so many images, drawn by --seed.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="For --limit, --bootstrap and random heatmaps.")] = 0,
    trust_model: TrustModel = False,
    data_dir: DataDir = None,
    max_pixels: MaxPixels = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write evaluation.json, .csv and .md and charts there.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    as_markdown: AsMarkdown = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure AP and recall of a run, or of anyone's detections.

    [dim]kgradcam evaluate runs/cat --thresholds 0.05:0.50:0.05 --radii 0,20 --out runs/ap[/dim]
    """
    from kgradcam.evaluation.grid import evaluate_detections, evaluate_run
    from kgradcam.evaluation.tuning import read_choice
    from kgradcam.runs.run import Run

    form = output_form(json=as_json, csv=as_csv, markdown=as_markdown)
    given = detections is not None and ground_truth is not None
    if (run is None) != given or (detections is None) != (ground_truth is None):
        raise UsageError("Give either RUN, or --detections FILE and --ground-truth FILE.")
    if run is None and (threshold or radius or boxes or box_options or explanation_metrics):
        raise UsageError(
            "--threshold, --radius, --boxes, --box-options and --explanation-metrics need RUN: "
            "given detections have no heatmaps."
        )
    of_ap = {
        "--iou": iou,
        "--ap": ap,
        "--inclusive and --exclusive": inclusive is not None,
        "--match": match,
        "--baselines": baselines,
        "--bootstrap": bootstrap,
        "--fail-under": fail_under,
    }
    if explanation_metrics:
        of_boxes = {
            "--threshold": threshold,
            "--radius": radius,
            "--boxes": boxes,
            "--box-options": box_options,
            "--difficult": difficult,
            "--csv": as_csv,
            "--out": out,
        }
        refuse({**of_ap, **of_boxes}, "--explanation-metrics")
        assert run is not None
        _evaluate_explanations(run, limit, seed, data_dir, trust_model, form, quiet)
        return
    if out is not None:
        require_absent(out / "evaluation.json", force)
    chosen = None
    if box_options is not None:
        if threshold or radius or boxes:
            raise UsageError("Give either --box-options, or --threshold, --radius and --boxes.")
        chosen = read_choice(box_options)
        rows, boxes = chosen.rows, chosen.boxes
    thresholds = [chosen.threshold] if chosen else joined(threshold) or None
    radii = [chosen.radius] if chosen else whole_numbers(radius)
    if protocol in ("coco", "wsol"):
        refuse({**of_ap, "several --radii": len(radii or ()) > 1}, f"--protocol {protocol}")
        measured = _evaluate_otherwise(
            *(protocol, run, detections, ground_truth, rows),
            *(thresholds, radii, difficult, boxes, quiet),
        )
        print_result(measured, form)
        if out is not None:
            _write_evaluation(out, measured, charts={})
        return
    rules = protocol_rules(protocol, difficult, ap, inclusive, match)
    ious = joined(iou) or [0.3, 0.4, 0.5]
    if run is not None:
        opened = Run(run)
        result = evaluate_run(
            opened,
            thresholds,
            ious,
            rules,
            rows,
            radii=radii,
            box_options=_options(opened, boxes),
            baselines=baselines,
            bootstrap=bootstrap,
            seed=seed,
            quiet=quiet,
        )
        if chosen is not None and chosen.chosen_on(opened):
            note(f"Note: {box_options} was selected on the data it is scored on.")
    else:
        assert detections is not None
        assert ground_truth is not None
        result = evaluate_detections(
            *_read_given(detections, ground_truth, rows),
            ious,
            rules,
            baselines=baselines,
            bootstrap=bootstrap,
            seed=seed,
        )
    print_result(result, form)
    if result.chosen_on_the_test:
        _, best_radius, best_threshold = result.best
        note(
            f"Best: threshold {best_threshold:g}, radius {best_radius}; selected on the data it is "
            "scored on. `kgradcam tune` selects on another split.",
            quiet,
        )
    if out is not None:
        from kgradcam.pictures.charts import draw_charts

        _write_evaluation(out, result, draw_charts(result))
    _fail_under(result, fail_under or ())


def _evaluate_otherwise(
    protocol: str,
    run: Path | None,
    detections: Path | None,
    ground_truth: Path | None,
    rows: str,
    thresholds: list[float] | None,
    radii: list[int] | None,
    difficult: str | None,
    boxes: str | None,
    quiet: bool,
) -> Any:
    """The protocols that measure other things than AP and recall at some IoU."""
    from kgradcam.evaluation.wsol_and_coco import (
        coco_of_detections,
        coco_of_run,
        wsol_of_detections,
        wsol_of_run,
    )
    from kgradcam.runs.run import Run

    if run is not None:
        opened = Run(run)
        options = _options(opened, boxes)
        radius = radii[0] if radii else None
        if protocol == "wsol":
            return wsol_of_run(opened, thresholds, radius, rows, options, quiet)
        ignored = difficult == "ignore"
        return coco_of_run(opened, thresholds, radius, rows, options, ignored, quiet)
    assert detections is not None
    assert ground_truth is not None
    truth, found = _read_given(detections, ground_truth, rows)
    if protocol == "wsol":
        return wsol_of_detections(truth, found)
    return coco_of_detections(truth, found, difficult == "ignore")


def _options(run: Any, boxes: str | None) -> Any:
    """The run's own box options, or the defaults of the rules that were asked for."""
    return run.options if boxes in (None, run.options.rules) else box_rules(boxes or "")


def _write_evaluation(folder: Path, result: Any, charts: Mapping[str, Any]) -> None:
    from kgradcam.files import write_atomically
    from kgradcam.pictures.figures import save

    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in charts.items():
        save(figure, folder / f"{name}.png")
    write_atomically(folder / "evaluation.csv", result.to_csv())
    write_atomically(folder / "evaluation.md", result.to_markdown() + "\n")
    write_atomically(folder / "evaluation.json", result.to_json() + "\n")
    typer.echo(folder, err=True)


def _fail_under(result: Any, demands: Sequence[str]) -> None:
    for demand in demands:
        metric, _, least = demand.partition("=")
        try:
            wanted = float(least)
        except ValueError:
            raise UsageError(f"--fail-under must be as ap@0.5=0.4. Received: {demand!r}.") from None
        value = result.value(metric)
        if not value >= wanted:
            raise UserError(f"{metric} is {value:.4f}, under {wanted:g}.")


def _evaluate_explanations(
    run: Path,
    limit: int | None,
    seed: int,
    data_dir: Path | None,
    trusted: bool,
    form: str,
    quiet: bool,
) -> None:
    import_tensorflow()
    from kgradcam.evaluation.explanations import faithfulness_of_run
    from kgradcam.metrics.faithfulness import MEASURES
    from kgradcam.runs.run import Run

    card = faithfulness_of_run(
        Run(run), limit=limit, seed=seed, data_dir=data_dir, trusted=trusted, quiet=quiet
    )
    for name, meaning in MEASURES.items():
        note(f"{name}: {meaning}", quiet)
    print_result(card, form)


def _read_given(detections: Path, ground_truth: Path, rows: str) -> tuple[Any, Any]:
    from kgradcam.runs.coco_files import read_detections, read_ground_truth
    from kgradcam.runs.tables import keep_rows

    truth = read_ground_truth(ground_truth)
    return truth, keep_rows(read_detections(detections, truth), rows)
