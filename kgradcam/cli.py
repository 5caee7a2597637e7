"""The `kgradcam` command: options in, one call, results out.

Data go to stdout, all else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
TensorFlow takes seconds to import, so each command imports what it needs when it runs.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from kgradcam import __version__
from kgradcam.errors import UsageError, UserError, did_you_mean

app = typer.Typer(
    help="Grad-CAM for every Keras 3 model: explain, localize, measure.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_DATASET = "A VOC dataset of tensorflow-datasets, a folder in VOC layout, or demo."
_MODEL = "efficientnet-lite0, a network of keras.applications such as resnet50, or a .keras file."
_WEIGHTS = "imagenet, or a weights file. A .keras file brings its own."
_PREPROCESS = (
    "Use the preprocessing of this model; none for RGB in 0..255. Default: the model's own."
)
_LAYER = (
    "The layer to explain; repeat to fuse several. Default: the last one with space; see "
    "`kgradcam layers`."
)
_METHOD = (
    "gradcam, guided-gradcam, cam, gradcam++, xgradcam, hirescam, layercam, counterfactual, "
    "eigencam, scorecam or ablationcam."
)

Weights = Annotated[str, typer.Option(help=_WEIGHTS, metavar="imagenet|FILE")]
Preprocess = Annotated[str | None, typer.Option(help=_PREPROCESS, metavar="NAME")]
Layer = Annotated[list[str] | None, typer.Option(help=_LAYER, metavar="NAME", show_default=False)]
Method = Annotated[str, typer.Option(help=_METHOD, metavar="NAME")]
ImageSize = Annotated[
    str,
    typer.Option(
        help="native keeps the picture's size; N resizes it to N x N pixels.", metavar="native|N"
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where datasets are kept.", envvar="TFDS_DATA_DIR", show_default=False),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already at --out.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")]


class _Numbers(list[float]):
    """What an option of numbers takes: one, several by commas, or START:STOP:STEP."""


def _numbers(text: str | _Numbers) -> _Numbers:
    if isinstance(text, _Numbers):
        return text
    found = _Numbers()
    for item in text.split(","):
        try:
            start, *rest = map(Decimal, item.split(":"))
            stop, step = rest or (start, Decimal(1))
        except (ArithmeticError, ValueError):
            raise typer.BadParameter(f"{item!r} is no number and no START:STOP:STEP.") from None
        if not (start.is_finite() and stop.is_finite() and step > 0 and start <= stop):
            raise typer.BadParameter(f"{item!r} is no range upwards.")
        count = int((stop - start) / step) + 1
        if count > 10_000:
            raise typer.BadParameter(f"{item!r} is more than 10,000 numbers.")
        # Decimal, so that 0.1:0.3:0.1 ends in 0.3 and not in 0.30000000000000004.
        found += [float(start + i * step) for i in range(count)]
    return found


def _fractions(text: str | _Numbers) -> _Numbers:
    found = _numbers(text)
    if not all(0 <= each <= 1 for each in found):
        raise typer.BadParameter(f"{text} is not in 0 to 1.")
    return found


def _pixels(text: str | _Numbers) -> _Numbers:
    found = _numbers(text)
    if not all(each >= 0 and each == int(each) for each in found):
        raise typer.BadParameter(f"{text} is not a whole number of pixels.")
    return found


Thresholds = Annotated[
    list[_Numbers] | None,
    typer.Option(
        *("--threshold", "--thresholds"),
        help="Heat threshold; several: 0.1,0.2 or 0.01:0.60:0.01, or repeat.",
        parser=_fractions,
        metavar="NUMBERS",
        show_default=False,
    ),
]
Radii = Annotated[
    list[_Numbers] | None,
    typer.Option(
        *("--radius", "--radii"),
        help="Smoothing radius in pixels, likewise. Default: the run's.",
        parser=_pixels,
        metavar="NUMBERS",
        show_default=False,
    ),
]
Ious = Annotated[
    list[_Numbers] | None,
    typer.Option(
        *("--iou", "--ious"),
        help="IoU at which a box is right, likewise.",
        parser=_fractions,
        metavar="NUMBERS",
        show_default="0.3,0.4,0.5",
    ),
]
Protocol = Annotated[
    str, typer.Option(help="How AP is defined.", metavar="seed|voc2007|voc2010|coco|wsol")
]
ApProtocol = Annotated[str, typer.Option(help="How AP is defined.", metavar="seed|voc2007|voc2010")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="A Markdown table.")]
RunFolder = Annotated[Path, typer.Argument(help="A folder that detect has written.", metavar="RUN")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kgradcam {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


def _import_tensorflow() -> None:
    """Imports TensorFlow in silence.

    What it says while it is imported heeds no setting (tensorflow issue 100442), so stderr looks
    away for that long; an exception comes through all the same.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@app.command()
def detect(
    out: Annotated[Path, typer.Option(help="The run folder to write.", metavar="DIR")],
    dataset: Annotated[str, typer.Option(help=_DATASET)] = "voc/2007",
    split: Annotated[
        str | None, typer.Option(help="Default: test, or all for a folder without image lists.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class of the dataset; repeat for several; all for each. NAME=TARGET says which "
            'outputs of the model stand for it: kangaroo=104, dog=151-268, cat=tabby,"tiger cat".',
            metavar="NAME[=TARGET]",
            show_default="all",
        ),
    ] = None,
    model: Annotated[str, typer.Option(help=_MODEL)] = "resnet50",
    weights: Weights = "imagenet",
    preprocess: Preprocess = None,
    method: Method = "gradcam",
    layer: Layer = None,
    image_size: ImageSize = "native",
    batch_size: Annotated[int, typer.Option(help="Images of one shape at a time.", min=1)] = 16,
    threshold: Thresholds = None,
    radius: Annotated[int, typer.Option(help="Smoothing radius in pixels.", min=0)] = 20,
    score: Annotated[
        str, typer.Option(help="heat ranks the boxes; constant does not.", metavar="heat|constant")
    ] = "heat",
    limit: Annotated[
        int | None, typer.Option(help="Take only so many images, drawn by --seed.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="For the draw of --limit.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")
    ] = False,
    data_dir: DataDir = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Localize the classes of a VOC dataset: heatmaps once, boxes for every threshold.

    [dim]kgradcam detect --dataset demo --class cat --model efficientnet-lite0 --out runs/cat[/dim]
    """
    _import_tensorflow()
    from kgradcam.boxes import BoxOptions
    from kgradcam.detection import Configuration
    from kgradcam.detection import detect as run_detect

    if score not in ("heat", "constant"):
        raise UsageError(f"--score must be heat or constant. Received: {score!r}.")
    run = run_detect(
        Configuration(
            dataset=dataset,
            split=split,
            classes=tuple(classes or ["all"]),
            model=model,
            weights=weights,
            preprocess=preprocess,
            method=method,
            layer=_layer(layer),
            image_size=_image_size(image_size),
            batch_size=batch_size,
            thresholds=tuple(_joined(threshold) or (0.01, 0.02, 0.06)),
            boxes=BoxOptions(radius, score),
            limit=limit,
            seed=seed,
            strict=strict,
        ),
        out,
        data_dir=data_dir,
        force=force,
        quiet=quiet,
    )
    _report_skipped(run.info["skipped"])
    counts = run.info["counts"]
    _note(
        f"{counts['images']} images, {counts['heatmaps']} heatmaps of {run.info['model']['layer']} "
        f"by {method}, {len(run.thresholds)} thresholds.",
        quiet,
    )
    typer.echo(out)


@app.command()
def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A folder that detect has written.", metavar="[RUN]", show_default=False
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(help="Instead of RUN: COCO results (.json) or the seed's pickle."),
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Their ground truth: COCO (.json) or the seed's pickle.")
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
    box_options: Annotated[
        Path | None,
        typer.Option(help="Threshold, radius and rows that tune has chosen.", metavar="FILE"),
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
    data_dir: DataDir = None,
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
    from kgradcam.evaluation import evaluate_detections, evaluate_run
    from kgradcam.runs import Run
    from kgradcam.tuning import read_choice

    form = _form(json=as_json, csv=as_csv, markdown=as_markdown)
    given = detections is not None and ground_truth is not None
    if (run is None) != given or (detections is None) != (ground_truth is None):
        raise UsageError("Give either RUN, or --detections FILE and --ground-truth FILE.")
    if run is None and (threshold or radius or box_options or explanation_metrics):
        raise UsageError(
            "--threshold, --radius, --box-options and --explanation-metrics need RUN: given "
            "detections have no heatmaps."
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
            "--box-options": box_options,
            "--difficult": difficult,
            "--csv": as_csv,
            "--out": out,
        }
        _refuse({**of_ap, **of_boxes}, "--explanation-metrics")
        assert run is not None
        _evaluate_explanations(run, limit, seed, data_dir, form, quiet)
        return
    if out is not None:
        _require_absent(out / "evaluation.json", force)
    chosen = None
    if box_options is not None:
        if threshold or radius:
            raise UsageError("Give either --box-options, or --threshold and --radius.")
        chosen = read_choice(box_options)
        rows = chosen.rows
    thresholds = [chosen.threshold] if chosen else _joined(threshold) or None
    radii = [chosen.radius] if chosen else _radii(radius)
    if protocol in ("coco", "wsol"):
        _refuse({**of_ap, "several --radii": len(radii or ()) > 1}, f"--protocol {protocol}")
        measured = _evaluate_otherwise(
            protocol, run, detections, ground_truth, rows, thresholds, radii, difficult, quiet
        )
        _print_result(measured, form)
        if out is not None:
            _write_evaluation(out, measured, charts={})
        return
    rules = _rules(protocol, difficult, ap, inclusive, match)
    ious = _joined(iou) or [0.3, 0.4, 0.5]
    if run is not None:
        opened = Run(run)
        result = evaluate_run(
            opened,
            thresholds,
            ious,
            rules,
            rows,
            radii=radii,
            baselines=baselines,
            bootstrap=bootstrap,
            seed=seed,
            quiet=quiet,
        )
        if chosen is not None and chosen.chosen_on(opened):
            _note(f"Note: {box_options} was selected on the data it is scored on.")
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
    _print_result(result, form)
    if result.chosen_on_the_test:
        _, best_radius, best_threshold = result.best
        _note(
            f"Best: threshold {best_threshold:g}, radius {best_radius}; selected on the data it is "
            "scored on. `kgradcam tune` selects on another split.",
            quiet,
        )
    if out is not None:
        from kgradcam.charts import draw_charts

        _write_evaluation(out, result, draw_charts(result))
    _fail_under(result, fail_under or ())


def _form(**wanted: bool) -> str:
    """Which form of output is asked for; a table, if none."""
    given = [name for name, is_wanted in wanted.items() if is_wanted]
    if len(given) > 1:
        raise UsageError(f"Give one of --{' and --'.join(given)}.")
    return given[0] if given else "table"


def _refuse(options: dict[str, Any], asked: str) -> None:
    """What would have no effect is a mistake."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(f"{asked} knows nothing of {' or '.join(given)}.")


def _rules(
    protocol: str,
    difficult: str | None = None,
    ap: str | None = None,
    inclusive: bool | None = None,
    match: str | None = None,
) -> Any:
    from kgradcam.metrics.boxes import PROTOCOLS, find_protocol

    names = [*PROTOCOLS, "coco", "wsol"]
    if protocol not in names:
        raise UsageError(
            f"--protocol {protocol!r} is none of {', '.join(names)}.{did_you_mean(protocol, names)}"
        )
    for name, value, options in (
        ("--difficult", difficult, ("ignore", "count")),
        ("--ap", ap, ("11", "area", "101")),
        ("--match", match, ("devkit", "coco")),
    ):
        if value is not None and value not in options:
            raise UsageError(f"{name} must be {' or '.join(options)}. Received: {value!r}.")
    return find_protocol(protocol).changed(
        difficult=difficult, ap=ap, inclusive=inclusive, match=match
    )


def _evaluate_otherwise(
    protocol: str,
    run: Path | None,
    detections: Path | None,
    ground_truth: Path | None,
    rows: str,
    thresholds: list[float] | None,
    radii: list[int] | None,
    difficult: str | None,
    quiet: bool,
) -> Any:
    """The protocols that measure other things than AP and recall at some IoU."""
    from kgradcam import localization
    from kgradcam.runs import Run

    if run is not None:
        return localization.evaluate_run(
            Run(run), protocol, thresholds, radii, rows, difficult == "ignore", quiet=quiet
        )
    assert detections is not None
    assert ground_truth is not None
    truth, found = _read_given(detections, ground_truth, rows)
    return localization.evaluate_detections(truth, found, protocol, difficult == "ignore")


def _write_evaluation(folder: Path, result: Any, charts: Mapping[str, Any]) -> None:
    from kgradcam.files import write_atomically
    from kgradcam.pictures import save

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


@app.command()
def tune(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The options to write.", metavar="FILE.json")],
    metric: Annotated[
        str, typer.Option(help="What to maximize, in the mean over classes.", metavar="ap@IOU")
    ] = "ap@0.5",
    threshold: Thresholds = None,
    radius: Radii = None,
    protocol: ApProtocol = "voc2010",
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Choose box options on one run, to evaluate another with them.

    [dim]kgradcam tune runs/train --metric ap@0.5 --out options.json[/dim]
    """
    from kgradcam.runs import Run
    from kgradcam.tuning import tune as choose
    from kgradcam.tuning import write_choice

    _require_absent(out, force)
    thresholds = _joined(threshold) or _numbers("0.01:0.60:0.01")
    choice, _ = choose(
        Run(run), metric, thresholds, _radii(radius) or [0, 5, 10, 20, 40], _rules(protocol), quiet
    )
    write_choice(out, choice)
    _note(
        f"threshold {choice.threshold:g}, radius {choice.radius}, rows {choice.rows}: {metric} "
        f"{choice.value:.4f} on {choice.dataset} {choice.split}",
        quiet,
    )
    typer.echo(out)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs on the same images.", metavar="RUN...")],
    threshold: Thresholds = None,
    radius: Radii = None,
    iou: Ious = None,
    protocol: ApProtocol = "voc2010",
    bootstrap: Annotated[int, typer.Option(help="Samples of the images to draw.", min=10)] = 1000,
    seed: Annotated[int, typer.Option(help="For the samples.")] = 0,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
    quiet: Quiet = False,
) -> None:
    """Hold runs on the same images against the first: which differ really?

    [dim]kgradcam compare runs/gradcam runs/layercam --threshold 0.25 --iou 0.5[/dim]
    """
    from kgradcam.comparison import compare_runs
    from kgradcam.runs import Run

    form = _form(json=as_json, markdown=as_markdown)
    if len(runs) < 2:
        raise UsageError("Give two runs or more.")
    result = compare_runs(
        [Run(folder) for folder in runs],
        _joined(iou) or [0.3, 0.4, 0.5],
        _rules(protocol),
        _joined(threshold) or None,
        _radii(radius),
        bootstrap,
        seed,
    )
    _print_result(result, form)
    if len(_joined(threshold)) != 1:
        _note("Each run has its best threshold, selected on the data it is scored on.", quiet)


def _evaluate_explanations(
    run: Path,
    limit: int | None,
    seed: int,
    data_dir: Path | None,
    form: str,
    quiet: bool,
) -> None:
    _import_tensorflow()
    from kgradcam.metrics.faithfulness import MEASURES
    from kgradcam.runs import Run
    from kgradcam.scorecard import score_run

    card = score_run(Run(run), limit=limit, seed=seed, data_dir=data_dir, quiet=quiet)
    for name, meaning in MEASURES.items():
        _note(f"{name}: {meaning}", quiet)
    _print_result(card, form)


def _print_result(result: Any, form: str) -> None:
    if form == "table":
        _print_table(result.title, *result.table())
    else:
        typer.echo(getattr(result, f"to_{form}")().rstrip("\n"))


def _read_given(detections: Path, ground_truth: Path, rows: str) -> tuple[Any, Any]:
    from kgradcam import records, seed_files

    if detections.suffix == ".json" and ground_truth.suffix == ".json":
        truth = records.read_ground_truth(ground_truth)
        found = records.read_detections(detections, truth)
    elif detections.suffix == ".pickle" and ground_truth.suffix == ".pickle":
        truth = seed_files.read_seed_ground_truth(ground_truth)
        found = seed_files.read_seed_detections(detections, truth)
    else:
        raise UsageError(
            "--detections and --ground-truth must both be COCO JSON (.json) or both be the seed's "
            f"pickles (.pickle). Received: {detections.name} and {ground_truth.name}."
        )
    return truth, records.keep_rows(found, rows)


@app.command()
def visualize(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The picture to write.", metavar="FILE.png")],
    count: Annotated[int, typer.Option(help="How many images.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="For the choice of the images.")] = 0,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Heat threshold of the boxes. Default: the run's highest.", min=0.0, max=1.0
        ),
    ] = None,
    data_dir: DataDir = None,
    force: Force = False,
) -> None:
    """Draw random images of a run: heatmaps, annotated and predicted boxes.

    [dim]kgradcam visualize runs/cat --count 10 --threshold 0.06 --out ten.png[/dim]
    """
    _import_tensorflow()
    from kgradcam.pictures import save
    from kgradcam.runs import Run
    from kgradcam.visualization import visualize_run

    _require_absent(out, force)
    save(visualize_run(Run(run), threshold, count, seed, data_dir), out)
    typer.echo(out)


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Pictures.", metavar="IMAGE...")],
    out: Annotated[Path, typer.Option(help="The picture to write.", metavar="FILE.png")],
    model: Annotated[str, typer.Option(help=_MODEL)] = "resnet50",
    weights: Weights = "imagenet",
    preprocess: Preprocess = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class by name, index or group; repeat for several. Default: the top class.",
            metavar="NAME|INDEX",
            show_default=False,
        ),
    ] = None,
    layer: Layer = None,
    image_size: ImageSize = "native",
    method: Method = "gradcam",
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Draw another method or model beside; repeat for more. MODEL=FILE says which "
            "weights.",
            metavar="METHOD|MODEL[=FILE]",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Measure how faithful the heatmaps are.")
    ] = False,
    force: Force = False,
) -> None:
    """Show where a model sees a class in any picture.

    [dim]kgradcam explain cat.jpg --model efficientnet-lite0 --class tabby --out overlay.png[/dim]
    """
    _import_tensorflow()
    from kgradcam.methods import METHODS
    from kgradcam.metrics.faithfulness import MEASURES
    from kgradcam.models import load_classifier, model_names
    from kgradcam.pictures import save
    from kgradcam.visualization import explain_images

    _require_absent(out, force)
    size = _image_size(image_size)
    others = [name.partition("=") for name in compare or () if name not in METHODS]
    for name, _, _ in others:
        if name not in model_names() and not name.endswith(".keras"):
            options = [*METHODS, *model_names()]
            raise UserError(
                f"--compare {name!r} is no method, no model by name and no .keras file."
                f"{did_you_mean(name, options)} Methods: {', '.join(METHODS)}."
            )
    classifiers = [load_classifier(model, weights, size, preprocess)]
    classifiers += [load_classifier(name, file or "imagenet", size) for name, _, file in others]
    methods = [method, *(name for name in compare or () if name in METHODS)]
    figure, findings = explain_images(
        images, classifiers, classes or (), _layer(layer), size, methods, metrics
    )
    save(figure, out)
    if metrics:
        for name, meaning in MEASURES.items():
            if name in findings[0].measures:
                _note(f"{name}: {meaning}")
        _print_table(
            "Faithfulness",
            ["image", "model", "method", "class", "probability", *findings[0].measures],
            [
                [
                    *(each.image.name, each.model, each.method, each.class_name),
                    *(f"{value:.3f}" for value in (each.probability, *each.measures.values())),
                ]
                for each in findings
            ],
        )
    else:
        for each in findings:
            what = f"{each.model} {each.method} {each.class_name}" if compare else each.class_name
            _note(f"{each.image}: {what} {each.probability:.1%}")
    typer.echo(out)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.", metavar="DIR")] = Path("demo"),
    data_dir: DataDir = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Detect, evaluate and visualize on pictures that need no download."""
    _import_tensorflow()
    from kgradcam.demo import run_demo

    evaluation, picture = run_demo(out, data_dir=data_dir, force=force, quiet=quiet)
    _print_table(evaluation.title, *evaluation.table())
    typer.echo(picture)


@app.command()
def prepare(
    devkit: Annotated[Path, typer.Option(help="An unpacked VOCdevkit.", metavar="DIR")],
    year: Annotated[str, typer.Option(help="2007 or 2012.")],
    data_dir: DataDir = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if an image or its annotation cannot be read.")
    ] = False,
) -> None:
    """Write voc/2007 or voc/2012 of tensorflow-datasets from an unpacked devkit.

    [dim]kgradcam prepare --devkit VOCdevkit --year 2007[/dim]
    """
    _import_tensorflow()
    from kgradcam.builders import prepare as write_dataset

    folder, counts, skipped = write_dataset(devkit, year, data_dir, strict)
    _report_skipped([{"file": name, "reason": reason} for name, reason in skipped])
    _note(", ".join(f"{split}: {count} images" for split, count in counts.items()))
    typer.echo(folder)


@app.command()
def layers(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    weights: Annotated[
        str | None, typer.Option(help="Only the shapes count, so none are loaded by default.")
    ] = None,
) -> None:
    """List the layers of a model that can be explained; the default is marked."""
    _import_tensorflow()
    from kgradcam.layers import list_layers
    from kgradcam.models import load_classifier

    calls, default = list_layers(load_classifier(model, weights, image_size=None).model)
    lines = [
        [
            call.path,
            type(call.layer).__name__,
            " x ".join(str(size or "any") for size in call.shape),
            "default" if call is default else "",
        ]
        for call in calls
    ]
    _print_table(f"Layers of {model}", ["layer", "type", "height x width x channels", ""], lines)


@app.command()
def env() -> None:
    """Show versions, devices and where data are kept: for bug reports."""
    _import_tensorflow()
    from kgradcam.environment import describe

    for name, value in describe().items():
        typer.echo(f"{name:24}{value}")


def _joined(lists: Sequence[_Numbers] | None) -> list[float]:
    """All numbers of a repeated option, each once, in the order given."""
    return list(dict.fromkeys(each for numbers in lists or () for each in numbers))


def _radii(lists: Sequence[_Numbers] | None) -> list[int] | None:
    return [int(each) for each in _joined(lists)] or None


def _layer(names: Sequence[str] | None) -> str | tuple[str, ...] | None:
    if not names:
        return None
    return names[0] if len(names) == 1 else tuple(names)


def _image_size(text: str) -> int | None:
    if text == "native":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--image-size must be native or a number of pixels. Received: {text!r}.")


def _require_absent(out: Path, force: bool) -> None:
    """Says so before the work, not after it."""
    if out.exists() and not force:
        raise UserError(
            f"{out} is already there. Choose another --out, or replace it with --force."
        )


def _report_skipped(skipped: Sequence[dict[str, str]]) -> None:
    for each in skipped:
        _note(f"skipped {each['file']}: {each['reason']}")
    if skipped:
        _note(f"{len(skipped)} images skipped.")


def _note(text: str, quiet: bool = False) -> None:
    if not quiet:
        typer.echo(text, err=True)


def _print_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, line))  # names from data are text, never markup
    # A pipe has no width of its own: take what the table needs, so that no cell is cut.
    width = None if sys.stdout.isatty() else Console(width=10_000).measure(table).maximum
    Console(width=width).print(table)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"kgradcam: {message}", err=True)
    sys.exit(code)


def main() -> None:
    """Runs the command line; what a user can cause becomes one line and an exit code."""
    try:
        app()
    except UsageError as error:
        _fail(str(error), 2)
    except (UserError, OSError) as error:
        _fail(str(error), 1)
    except SystemExit as exit_:
        if exit_.code == 130:
            typer.echo("kgradcam: interrupted; nothing half-written is left behind.", err=True)
        raise
