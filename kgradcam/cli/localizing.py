"""`detect` and `visualize`: a run, and pictures of it."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli.options import (
    DATASET,
    MODEL,
    DataDir,
    Force,
    Layer,
    Method,
    Precision,
    Preprocess,
    Quiet,
    RunFolder,
    Thresholds,
    Weights,
    box_rules,
    joined,
    layer_paths,
    side_length,
)
from kgradcam.cli.output import (
    import_tensorflow,
    note,
    report_skipped,
    require_absent,
)
from kgradcam.errors import UsageError


def detect(
    out: Annotated[Path, typer.Option(help="The run folder to write.", metavar="DIR")],
    dataset: Annotated[str, typer.Option(help=DATASET)] = "voc/2007",
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
    model: Annotated[str, typer.Option(help=MODEL)] = "resnet50",
    weights: Weights = "imagenet",
    preprocess: Preprocess = None,
    method: Method = "gradcam",
    layer: Layer = None,
    precision: Precision = "auto",
    boxes: Annotated[
        str,
        typer.Option(
            help="levels: the best of the boxes at all heat levels. seed: the rules of 2021, from "
            "plain heatmaps of native size.",
            metavar="levels|seed",
        ),
    ] = "levels",
    fast: Annotated[
        bool,
        typer.Option("--fast", help="One scale: a third less work, slightly worse boxes."),
    ] = False,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="native keeps the picture's size; N resizes it to N x N pixels.",
            metavar="native|N",
            show_default="448; native with --boxes seed",
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Show the model the pictures at this factor of their size; repeat to average.",
            metavar="FACTOR",
            show_default="1 and 0.5; 1 with --fast or --boxes seed",
        ),
    ] = None,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Spread heat to what looks alike.",
            show_default="refine; no-refine with --boxes seed",
        ),
    ] = None,
    presence: Annotated[
        str,
        typer.Option(
            help="Which classes a picture is asked for: those annotated on it, or those that the "
            "model believes in.",
            metavar="annotated|predicted",
        ),
    ] = "annotated",
    presence_threshold: Annotated[
        float,
        typer.Option(help="From which probability on it believes.", min=0.0, max=1.0),
    ] = 0.05,
    batch_size: Annotated[int, typer.Option(help="Images of one shape at a time.", min=1)] = 16,
    threshold: Thresholds = None,
    radius: Annotated[
        int | None,
        typer.Option(
            help="Smoothing radius in pixels.", min=0, show_default="0; 20 with --boxes seed"
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="How boxes are ranked: by their heat and its density, by their heat, or not.",
            metavar="density|heat|constant",
            show_default="density; heat with --boxes seed",
        ),
    ] = None,
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
    import_tensorflow()
    from kgradcam.boxes import THRESHOLDS
    from kgradcam.detection import Configuration
    from kgradcam.detection import detect as run_detect

    box_options = box_rules(boxes, radius, score)
    plain = boxes == "seed"
    if fast and (plain or scale):
        raise UsageError("--fast is the levels of one scale: it goes without --scale and seed.")
    if image_size is None:
        image_size = "native" if plain else "448"
    scales = tuple(scale or ((1.0,) if plain or fast else (1.0, 0.5)))
    run = run_detect(
        Configuration(
            dataset=dataset,
            split=split,
            classes=tuple(classes or ["all"]),
            model=model,
            weights=weights,
            preprocess=preprocess,
            method=method,
            layer=layer_paths(layer),
            precision=precision,
            image_size=side_length(image_size),
            scales=scales,
            refine=not plain if refine is None else refine,
            batch_size=batch_size,
            thresholds=tuple(joined(threshold) or THRESHOLDS[boxes]),
            boxes=box_options,
            presence=presence,
            presence_threshold=presence_threshold,
            limit=limit,
            seed=seed,
            strict=strict,
        ),
        out,
        data_dir=data_dir,
        force=force,
        quiet=quiet,
    )
    report_skipped(run.info["skipped"])
    counts = run.info["counts"]
    note(
        f"{counts['images']} images, {counts['heatmaps']} heatmaps of {run.info['model']['layer']} "
        f"by {method} in {run.info['configuration']['precision']}, "
        f"{len(run.thresholds)} thresholds.",
        quiet,
    )
    typer.echo(out)


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
    import_tensorflow()
    from kgradcam.pictures import save
    from kgradcam.runs import Run
    from kgradcam.visualization import visualize_run

    require_absent(out, force)
    save(visualize_run(Run(run), threshold, count, seed, data_dir), out)
    typer.echo(out)
