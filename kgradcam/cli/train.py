"""`train`: trains a classifier of a dataset's own classes, for `explain`, `detect` and `layers`."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.config_file import given_options
from kgradcam.cli.output import note, print_json, print_table, report_skipped
from kgradcam.cli.startup import import_tensorflow
from kgradcam.cli.train_options import TrainOptions
from kgradcam.errors import UsageError

_BESIDE_RESUME = {"imports", "out", "resume", "heatmaps", "data_dir", "as_json", "quiet"}


def train(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(help="The model folder to write.", metavar="DIR")],
    train_options: TrainOptions,
    heatmaps: Annotated[
        int,
        typer.Option(
            help="Log heatmaps of 16 validation images every N epochs, for TensorBoard. 0 logs "
            "none.",
            min=0,
            metavar="N",
        ),
    ] = 0,
    config: options.Config = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted training in --out.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the data, the network and the stages, and stop."),
    ] = False,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a classifier of a dataset's classes.

    For explain, detect and layers.

    Example:
        kgradcam train --dataset my-pictures --model efficientnet-lite0 --out models/mine
    """
    if resume:
        _reject_options_beside_resume(context)
    import_tensorflow(quiet)
    import tensorflow as tf

    from kgradcam import training
    from kgradcam.data.split_names import HELD_OUT
    from kgradcam.models.own_layers import import_modules

    import_modules(train_options.imports or ())
    if not tf.config.list_physical_devices("GPU"):
        # Cheap on a CPU. On a GPU some operations have no deterministic kernel and would fail.
        tf.config.experimental.enable_op_determinism()
    configuration = training.read_plan(out) if resume else train_options.configuration(context)
    if dry_run:
        plan = training.plan_training(configuration, data_dir)
        print_table(f"Training of {configuration.model}", *plan.table())
        for caution in plan.data.cautions:
            note(f"Warning: {caution}")
        return
    try:
        card = training.train(
            configuration,
            out,
            data_dir=data_dir,
            force=force,
            resume=resume,
            heatmaps=heatmaps,
            quiet=quiet,
            report=lambda line: note(line, quiet),
        )
    except KeyboardInterrupt:
        if (out / "training.json").is_file():
            note(f"Continue with `kgradcam train --resume --out {out}`.")
        raise
    report_skipped(card["skipped"])
    for name, metrics in card["metrics"].items():
        note(f"{name} mAP {100 * metrics['map']:.1f}", quiet)
    note(f"{card['seconds']:.0f} s; default layer of heatmaps: {card['layer']}.", quiet)
    count = card["data"]["validation"]["images"]
    note(f"{count} images were held out: detect --split {HELD_OUT} --model {out}.", quiet)
    if as_json:
        print_json(card)
    else:
        typer.echo(out)


def _reject_options_beside_resume(context: typer.Context) -> None:
    """Raises if an option would be ignored, because the training continues with its own ones."""
    for name in given_options(context):
        if name not in _BESIDE_RESUME:
            raise UsageError(
                "--resume continues with the options in training.json of --out and takes no "
                f"other. Received: --{'class' if name == 'classes' else name.replace('_', '-')}."
            )
