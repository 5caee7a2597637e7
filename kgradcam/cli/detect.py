"""`kgradcam detect`: localizes the classes of a dataset and writes a run folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam import progress
from kgradcam.cli import options, sharding
from kgradcam.cli.config_file import given_options, options_of
from kgradcam.cli.groups import ModelOptions
from kgradcam.cli.output import note, print_json, report_skipped, require_absent
from kgradcam.cli.parsing import (
    box_rules,
    class_mapping,
    image_size,
    joined,
    layer_paths,
    pixel_scale,
)
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UsageError
from kgradcam.storage import place

_BESIDE_RESUME = set(
    "resume shard workers runner beam_options refiner trust_model imports max_pixels data_dir "
    "dry_run as_json quiet".split()
)


def detect(
    context: typer.Context,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to write.", metavar="DIR", show_default=False),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue the interrupted run to this folder, with its options.",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[str, typer.Option(help=options.DATASET)] = "voc/2007",
    split: Annotated[
        str | None,
        typer.Option(
            help="A split of the dataset. held-out: the images that the training of --model held "
            "out.",
            metavar="NAME",
            show_default="test, else all",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class of the dataset, or all; repeat for several. NAME=TARGET maps it to "
            'outputs of the model: kangaroo=104, dog=151-268, cat=tabby,"tiger cat".',
            metavar="NAME[=TARGET]",
            show_default="all",
        ),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            help='TOML file of targets by class, as "Felis catus" = "281-285"; with --class all '
            "its classes count.",
            metavar="FILE.toml",
            show_default=False,
        ),
    ] = None,
    listed: Annotated[
        str | None,
        typer.Option(
            "--list",
            help="Text file of pictures, instead of --dataset; one path a line.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    model: options.Model = "resnet50",
    loading: ModelOptions,
    method: options.Method = "gradcam",
    layer: options.Layer = None,
    precision: options.Precision = "auto",
    jit_compile: Annotated[
        bool | None,
        typer.Option(
            "--xla/--no-xla",
            help="Compile with XLA, once for each image shape.",
            show_default="xla on a GPU, for images of one size",
        ),
    ] = None,
    boxes: Annotated[
        str,
        typer.Option(
            help="levels: boxes at many heat levels, scored, overlaps removed. single-threshold: "
            "one fixed threshold, as in the 2021 scripts.",
            metavar="levels|single-threshold",
        ),
    ] = "levels",
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Images of 416 pixels: a seventh less computation."),
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            help="native keeps the image's size; N resizes to N x N pixels.",
            metavar="native|N|WxH",
            show_default="twice the size that a model folder or file was trained at, at most 448; "
            "416 with --fast, native with --boxes single-threshold",
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Scale factor of the images for the model; repeat to average heatmaps.",
            metavar="FACTOR",
            show_default="1",
        ),
    ] = None,
    score_scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Scale factor at which classes are scored instead; repeat to average.",
            metavar="FACTOR",
            show_default="0.5, or the size of the training; none with --fast, --scale or --boxes "
            "single-threshold",
        ),
    ] = None,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Spread heat to pixels of similar colour and features.",
            show_default="refine; no-refine with --boxes single-threshold",
        ),
    ] = None,
    presence: Annotated[
        str,
        typer.Option(
            help="Classes to localize in an image: the annotated ones, or those that the model "
            "predicts.",
            metavar="annotated|predicted",
        ),
    ] = "annotated",
    presence_threshold: Annotated[
        float,
        typer.Option(help="Minimum probability of a predicted class.", min=0.0, max=1.0),
    ] = 0.05,
    heatmap_dtype: Annotated[
        str,
        typer.Option(
            help="How heatmaps are stored: exactly, or rounded in half the size.",
            metavar="float32|uint16",
        ),
    ] = "float32",
    batch_size: Annotated[int, typer.Option(help="Images of equal shape in a batch.", min=1)] = 16,
    threshold: options.Thresholds = None,
    radius: Annotated[
        int | None,
        typer.Option(
            help="Smoothing radius in pixels.",
            min=0,
            show_default="0; 20 with --boxes single-threshold",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Confidence of boxes: the IoU to expect, heat and its density, heat alone, or "
            "constant.",
            metavar="expected-iou|density|heat|constant",
            show_default="expected-iou; heat with --boxes single-threshold",
        ),
    ] = None,
    refiner: options.Refiner = None,
    limit: Annotated[
        int | None, typer.Option(help="Take at most N images, drawn at random.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of --limit.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")
    ] = False,
    layout: options.Layout = None,
    images: options.Images = None,
    clip: options.Clip = False,
    max_pixels: options.MaxPixels = None,
    data_dir: options.DataDir = None,
    config: options.Config = None,
    plan: sharding.OnlyPlan = False,
    shards: sharding.Shards = None,
    shard: sharding.Shard = None,
    workers: sharding.Workers = None,
    runner: sharding.Runner = None,
    beam_options: sharding.BeamOptions = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Read the dataset and print the configuration; write nothing."
        ),
    ] = False,
    as_json: options.AsJson = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Localize the classes of a dataset, and write a run.

    Heatmaps are computed once; boxes follow for every threshold.

    Example:
        kgradcam detect --dataset demo --class cat --model efficientnet-lite0 --out runs/cat
    """
    folder = _run_folder(out, resume)
    sharding.require_fitting(resume, shards, plan, shard, workers, runner, beam_options, refiner)
    others = sorted(set(given_options(context)) - _BESIDE_RESUME)
    import_tensorflow(quiet)
    imports, trusted = loading.imports or (), loading.trust_model
    opening: Any = {"trusted": trusted, "imports": imports, "data_dir": data_dir}
    if shard:
        sharding.require_no_others(others)
        sharding.compute_shard(folder, shard, as_json, quiet=quiet, **opening)
        return
    gpus = sharding.hide_gpus() if workers else []
    from kgradcam.boxes.options import DEFAULT_THRESHOLDS
    from kgradcam.models.own_layers import import_modules
    from kgradcam.refine import RunRefiner
    from kgradcam.runs.configuration import Configuration
    from kgradcam.runs.detection import detect as run_detect
    from kgradcam.runs.explaining import default_size
    from kgradcam.runs.partial_run import interrupted_configuration, is_interrupted
    from kgradcam.runs.plan import has_plan

    box_options = box_rules(boxes, radius, score)
    plain = boxes == "single-threshold"
    if fast and (plain or scale):
        raise UsageError(
            "--fast means one scale and --boxes levels. Leave out --scale and --boxes "
            "single-threshold, or --fast."
        )
    import_modules(imports)
    chosen: dict[str, Any] = {
        "classes": tuple(classes or ["all"]),
        "layer": layer_paths(layer),
        "preprocess": pixel_scale(loading.preprocess, loading.scale_pixels),
        "scales": tuple(scale or (1.0,)),
        "refine": not plain if refine is None else refine,
        "thresholds": tuple(joined(threshold) or DEFAULT_THRESHOLDS[boxes]),
        "boxes": box_options,
        "trusted": trusted,
        "class_map": class_mapping(class_map),
    }
    if listed:
        if "dataset" in given_options(context) or layout not in (None, "list"):
            raise UsageError("Give either --list FILE or --dataset.")
        chosen |= {"dataset": listed, "layout": "list"}
    configuration = Configuration(**options_of(context, Configuration) | chosen)
    factor: float | None = 0.5
    opened: Any = None
    if size is None:
        with progress.step(f"loading {model}", quiet):
            side, factor, opened = default_size(configuration, 416 if fast else 448)
        wanted = None if plain and factor else side
    else:
        wanted = image_size(size)
    single = plain or fast or scale or factor in (None, 1.0)
    score_scales: Any = tuple(score_scale or (() if single else (factor,)))
    configuration = replace(configuration, image_size=wanted, score_scales=score_scales)
    if resume:
        begun, stored, with_refiner = interrupted_configuration(folder)
        data_dir, refiner = data_dir or stored, refiner or with_refiner
        if not others:
            configuration = replace(
                begun, trusted=trusted, max_pixels=max_pixels or begun.max_pixels
            )
            options.limit_pixels(configuration.max_pixels)
    if dry_run:
        _dry_run(configuration, folder, data_dir, force, quiet)
        return
    common: Any = {"data_dir": data_dir, "force": force, "quiet": quiet, "opened": opened}
    try:
        if plan:
            sharding.write_plan(configuration, folder, shards or 1, as_json, **common)
            return
        if workers or runner or (resume and has_plan(folder)):
            if resume:
                sharding.require_no_others(others + ["refiner"] * bool(refiner))
            else:
                sharding.only_plan(configuration, folder, 1, **common)
            if runner:
                run = sharding.run_on_beam(folder, beam_options or (), quiet, **opening)
            else:
                run = sharding.run_in_workers(folder, workers or 1, gpus, quiet, **opening)
        else:
            run = run_detect(
                configuration,
                folder,
                resume=resume is not None,
                report=lambda line: note(line, quiet),
                refiner=RunRefiner(refiner) if refiner else None,
                **common,
            )
    except BaseException:
        if is_interrupted(folder):
            note(f"Finished images are kept. Continue with `kgradcam detect --resume {folder}`.")
        raise
    skipped = [asdict(each) for each in run.info.skipped]
    report_skipped(skipped)
    counts = run.info.counts
    note(
        f"{counts.images} images, {counts.heatmaps} heatmaps of {run.info.model.layer} "
        f"by {method} in {run.info.configuration.precision}, "
        f"{len(run.thresholds)} thresholds.",
        quiet,
    )
    if as_json:
        print_json({"run": str(folder), "counts": asdict(counts), "skipped": skipped})
    else:
        typer.echo(folder)


def _run_folder(out: Path | None, resume: Path | None) -> Path:
    if (folder := out or resume) and not (out and resume):
        return place(folder)
    raise UsageError("Give either --out RUN for a new run, or --resume RUN to continue one.")


def _dry_run(
    configuration: Any, out: Path, data_dir: Path | None, force: bool, quiet: bool
) -> None:
    """Reads the dataset but not the model, and prints the configuration as JSON."""
    from kgradcam.runs.run_dataset import open_configured

    require_absent(out, force)
    dataset = open_configured(configuration, data_dir, quiet)
    report_skipped([{"file": name, "reason": reason} for name, reason in dataset.skipped])
    note(
        f"{dataset.name} {dataset.split}, read as {dataset.description}: "
        f"{len(dataset.examples)} images, classes {', '.join(dataset.class_names) or 'none'}. "
        "Nothing was written.",
        quiet,
    )
    print_json(asdict(configuration))
