"""`kgradcam detect`: localizes the classes of a dataset and writes a run folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam.cli import options, sharding
from kgradcam.cli.config_file import given_options
from kgradcam.cli.detect_options import RunOptions
from kgradcam.cli.output import note, print_json, report_skipped, require_absent
from kgradcam.cli.startup import import_tensorflow
from kgradcam.cli.workers import hide_gpus
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
    run_options: RunOptions,
    refiner: options.Refiner = None,
    data_dir: options.DataDir = None,
    config: options.Config = None,
    sharded: sharding.Sharding,
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
    sharded.require_fitting(resume, refiner)
    # Options that an interrupted run or a plan already holds.
    others = sorted(set(given_options(context)) - _BESIDE_RESUME)
    import_tensorflow(quiet)
    trusted, imports = run_options.loading.trust_model, run_options.loading.imports or ()
    opening: Any = {"trusted": trusted, "imports": imports, "data_dir": data_dir}
    if sharded.shard:
        sharding.require_no_others(others)
        sharding.compute_shard(folder, sharded.shard, as_json, quiet=quiet, **opening)
        return
    # First of all, since TensorFlow cannot hide a GPU that it has used.
    gpus = hide_gpus() if sharded.workers else []
    from kgradcam.models.own_layers import import_modules
    from kgradcam.refine import RunRefiner
    from kgradcam.runs.detection import detect as run_detect
    from kgradcam.runs.partial_run import interrupted_configuration, is_interrupted
    from kgradcam.runs.plan import has_plan

    import_modules(imports)
    configuration, opened = run_options.configuration(context, quiet)
    if resume:
        begun, stored, with_refiner = interrupted_configuration(folder)
        data_dir, refiner = data_dir or stored, refiner or with_refiner
        # Repeated options are compared with the stored ones when the run is opened.
        if not others:
            most = configuration.max_pixels or begun.max_pixels
            options.limit_pixels(most)
            configuration = replace(begun, trusted=trusted, max_pixels=most)
    if dry_run:
        _dry_run(configuration, folder, data_dir, force, quiet)
        return
    common: Any = {"data_dir": data_dir, "force": force, "quiet": quiet, "opened": opened}
    try:
        if sharded.plan:
            sharding.write_plan(configuration, folder, sharded.shards or 1, as_json, **common)
            return
        if sharded.workers or sharded.runner or (resume and has_plan(folder)):
            if resume:
                sharding.require_no_others(others + ["refiner"] * bool(refiner))
            else:
                sharding.only_plan(configuration, folder, 1, **common)
            run = sharded.run(folder, gpus, quiet, **opening)
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
    counts, made_by = run.info.counts, run.info.configuration
    note(
        f"{counts.images} images, {counts.heatmaps} heatmaps of {run.info.model.layer} "
        f"by {made_by.method} in {made_by.precision}, "
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
