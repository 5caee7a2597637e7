"""`train`: a classifier of a dataset's own classes, for `explain`, `detect` and `layers`."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli.config_file import given_options
from kgradcam.cli.options import (
    DATASET,
    MODEL,
    AsJson,
    Config,
    DataDir,
    Force,
    Preprocess,
    Quiet,
)
from kgradcam.cli.output import note, print_json, print_table, report_skipped
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UsageError

_BESIDE_RESUME = {"out", "resume", "data_dir", "as_json", "quiet"}
_BUILD, _LEARN, _VARY = "What is built", "How it learns", "How pictures are varied"


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The model folder to write.", metavar="DIR")],
    dataset: Annotated[str, typer.Option(help=DATASET)] = "voc/2007",
    split: Annotated[
        str | None, typer.Option(help="Default: train, or all for a folder without that list.")
    ] = None,
    validation_split: Annotated[
        str | None,
        typer.Option(
            help="A split, or the share of the training images to hold out, as 0.2. Default: "
            "validation, or 0.2 without one.",
            metavar="NAME|SHARE",
        ),
    ] = None,
    test_split: Annotated[
        str | None,
        typer.Option(help="A split to measure once at the end; nothing is chosen on it."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class to tell apart; repeat for several. Default: those of the split.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help=f"The backbone: {MODEL}")] = "resnet50",
    weights: Annotated[
        str,
        typer.Option(
            help="imagenet, or a weights file; what a .npz file lacks is trained from the start.",
            metavar="imagenet|FILE",
        ),
    ] = "imagenet",
    preprocess: Preprocess = None,
    last_layer: Annotated[
        str | None,
        typer.Option(
            help="Cut the backbone after this layer. Default: its last one with space.",
            metavar="NAME",
            rich_help_panel=_BUILD,
        ),
    ] = None,
    larger_maps: Annotated[
        str,
        typer.Option(
            help="Double the last maps: take the last stride away; dilation also keeps what "
            "convolutions see.",
            metavar="none|stride|dilation",
            rich_help_panel=_BUILD,
        ),
    ] = "none",
    pooling: Annotated[
        str,
        typer.Option(
            help="How a map becomes a feature.", metavar="mean|logsumexp", rich_help_panel=_BUILD
        ),
    ] = "mean",
    sharpness: Annotated[
        float,
        typer.Option(
            help="Of logsumexp: 0 is nearly the mean, 10 nearly the maximum.",
            rich_help_panel=_BUILD,
        ),
    ] = 1.0,
    side_layer: Annotated[
        list[str] | None,
        typer.Option(
            help="An earlier layer that must know the classes too; repeat for several.",
            metavar="NAME",
            show_default=False,
            rich_help_panel=_BUILD,
        ),
    ] = None,
    frozen_until: Annotated[
        str | None,
        typer.Option(
            help="The last layer that is never trained.", metavar="NAME", rich_help_panel=_LEARN
        ),
    ] = None,
    cached_views: Annotated[
        int,
        typer.Option(
            help="Keep what the frozen layers make of N variations of each picture on disk, and "
            "train on that: many times faster.",
            min=0,
            metavar="N",
            rich_help_panel=_LEARN,
        ),
    ] = 0,
    image_size: Annotated[
        int, typer.Option(help="Side of the pictures.", min=16, rich_help_panel=_LEARN)
    ] = 224,
    batch_size: Annotated[int, typer.Option(min=1, rich_help_panel=_LEARN)] = 32,
    head_epochs: Annotated[
        int, typer.Option(help="Epochs for the head alone.", min=0, rich_help_panel=_LEARN)
    ] = 5,
    epochs: Annotated[
        int, typer.Option(help="Epochs for all layers, after those.", min=0, rich_help_panel=_LEARN)
    ] = 15,
    learning_rate: Annotated[
        float, typer.Option(help="Of the head; it falls as a cosine.", rich_help_panel=_LEARN)
    ] = 1e-3,
    backbone_rate: Annotated[
        float,
        typer.Option(
            help="Share of it for the backbone's last layer; its square for the first.",
            min=0.0,
            max=1.0,
            rich_help_panel=_LEARN,
        ),
    ] = 0.1,
    weight_decay: Annotated[
        float, typer.Option(help="Of AdamW.", min=0.0, rich_help_panel=_LEARN)
    ] = 1e-4,
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after N epochs without a better validation mAP; 0 never stops.",
            min=0,
            metavar="N",
            rich_help_panel=_LEARN,
        ),
    ] = 5,
    class_weights: Annotated[
        bool,
        typer.Option("--class-weights", help="Rare positives count more.", rich_help_panel=_LEARN),
    ] = False,
    mixed_precision: Annotated[
        bool,
        typer.Option(
            "--mixed-precision", help="Compute in float16, on GPUs.", rich_help_panel=_LEARN
        ),
    ] = False,
    scale: Annotated[
        float,
        typer.Option(
            help="Smallest share of the area that a crop keeps; 1 for no crops.",
            min=0.01,
            max=1.0,
            rich_help_panel=_VARY,
        ),
    ] = 0.4,
    flip: Annotated[
        bool, typer.Option(help="Mirror half of the pictures.", rich_help_panel=_VARY)
    ] = True,
    colour: Annotated[
        float,
        typer.Option(
            help="How much brightness, contrast and saturation vary.",
            min=0.0,
            max=1.0,
            rich_help_panel=_VARY,
        ),
    ] = 0.2,
    hide: Annotated[
        float,
        typer.Option(
            help="Hide-and-seek: the probability that a patch is hidden.",
            min=0.0,
            max=1.0,
            rich_help_panel=_VARY,
        ),
    ] = 0.0,
    cutmix: Annotated[
        float,
        typer.Option(
            help="CutMix: the probability that a part comes from another picture.",
            min=0.0,
            max=1.0,
            rich_help_panel=_VARY,
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="For weights, order and variations.", min=0)] = 0,
    config: Config = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the interrupted training in --out, as it was."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained on what, and stop.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier of a dataset's classes, for explain, detect and layers.

    [dim]kgradcam train --dataset my-pictures --model efficientnet-lite0 --out models/mine[/dim]
    """
    if resume:
        _refuse_beside_resume(context)
    import_tensorflow()
    import tensorflow as tf

    from kgradcam.training.augmentation import Augmentation
    from kgradcam.training.network import Architecture
    from kgradcam.training.plan import Configuration, plan_training
    from kgradcam.training.train import read_plan
    from kgradcam.training.train import train as run_training

    if not tf.config.list_physical_devices("GPU"):
        # Costs little on a CPU; on a GPU some operations have no such form.
        tf.config.experimental.enable_op_determinism()
    if resume:
        configuration = read_plan(out)
    else:
        configuration = Configuration(
            dataset=dataset,
            split=split,
            validation_split=validation_split,
            test_split=test_split,
            classes=tuple(classes or ()),
            model=model,
            weights=weights,
            preprocess=preprocess,
            architecture=Architecture(
                last_layer, larger_maps, pooling, sharpness, tuple(side_layer or ())
            ),
            frozen_until=frozen_until,
            cached_views=cached_views,
            image_size=image_size,
            batch_size=batch_size,
            head_epochs=head_epochs,
            epochs=epochs,
            learning_rate=learning_rate,
            backbone_rate=backbone_rate,
            weight_decay=weight_decay,
            patience=patience,
            class_weights=class_weights,
            augmentation=Augmentation(scale, flip, colour, hide, cutmix=cutmix),
            mixed_precision=mixed_precision,
            seed=seed,
        )
    if dry_run:
        plan = plan_training(configuration, data_dir)
        print_table(f"Training of {configuration.model}", *plan.table())
        return
    try:
        card = run_training(
            configuration,
            out,
            data_dir=data_dir,
            force=force,
            resume=resume,
            quiet=quiet,
            report=lambda line: note(line, quiet),
        )
    except KeyboardInterrupt:
        note(f"Go on with `kgradcam train --resume --out {out}`.")
        raise
    report_skipped(card["skipped"])
    for name, measured in card["metrics"].items():
        note(f"{name} mAP {100 * measured['map']:.1f}", quiet)
    note(f"{card['seconds']:.0f} s; explained at {card['layer']}.", quiet)
    if as_json:
        print_json(card)
    else:
        typer.echo(out)


def _refuse_beside_resume(context: typer.Context) -> None:
    """An interrupted training goes on as it was; another option would be ignored."""
    for name in given_options(context):
        if name not in _BESIDE_RESUME:
            raise UsageError(
                f"--resume goes on with the options of training.json in --out; it takes no other. "
                f"Received: --{'class' if name == 'classes' else name.replace('_', '-')}."
            )
