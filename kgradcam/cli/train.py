"""`train`: trains a classifier of a dataset's own classes, for `explain`, `detect` and `layers`."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import completion, options
from kgradcam.cli.config_file import given_options, options_of
from kgradcam.cli.output import note, print_json, print_table, report_skipped
from kgradcam.cli.parsing import pixel_scale
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UsageError

_BESIDE_RESUME = {"imports", "out", "resume", "heatmaps", "data_dir", "as_json", "quiet"}
_NETWORK, _TRAINING, _AUGMENTATION = "Network", "Training", "Random variations of images"


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The model folder to write.", metavar="DIR")],
    dataset: Annotated[str, typer.Option(help=options.DATASET)] = "voc/2007",
    split: Annotated[
        str | None,
        typer.Option(help="Training split. Default: train, or all for a folder without that list."),
    ] = None,
    validation_split: Annotated[
        str | None,
        typer.Option(
            help="Validation split, or the fraction of the training images to hold out, such as "
            "0.2. Default: the dataset's validation split, or 0.2 without one.",
            metavar="NAME|FRACTION",
        ),
    ] = None,
    test_split: Annotated[
        str | None, typer.Option(help="A split that is evaluated once, after training.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class to recognize; repeat for several. Default: those of the training split.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help=f"The backbone: {options.MODEL}", autocompletion=completion.models),
    ] = "resnet50",
    weights: Annotated[
        str,
        typer.Option(
            help="imagenet, or a weights file. Layers that a .npz file lacks start from random "
            "weights.",
            metavar="imagenet|FILE",
        ),
    ] = "imagenet",
    preprocess: options.Preprocess = None,
    scale_pixels: options.ScalePixels = False,
    imports: options.Imports = None,
    last_layer: Annotated[
        str | None,
        typer.Option(
            help="Cut the backbone after this layer. Default: its last one with height and width.",
            metavar="NAME",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    dilation: Annotated[
        bool,
        typer.Option(
            "--dilation",
            help="Double the last feature maps: remove the last stride and dilate the convolutions "
            "after it.",
            rich_help_panel=_NETWORK,
        ),
    ] = False,
    frozen_until: Annotated[
        str | None,
        typer.Option(
            help="The last layer that is never trained.", metavar="NAME", rich_help_panel=_NETWORK
        ),
    ] = None,
    cached_views: Annotated[
        int,
        typer.Option(
            help="Compute the frozen layers once for N variations of each image and keep their "
            "output on disk. Many times faster on CPUs.",
            min=0,
            metavar="N",
            rich_help_panel=_TRAINING,
        ),
    ] = 0,
    image_size: Annotated[
        int,
        typer.Option(
            help="Height and width of the training images in pixels.",
            min=16,
            rich_help_panel=_TRAINING,
        ),
    ] = 224,
    batch_size: Annotated[
        int, typer.Option(help="Images in a batch.", min=1, rich_help_panel=_TRAINING)
    ] = 32,
    head_epochs: Annotated[
        int, typer.Option(help="Epochs that train the head only.", min=0, rich_help_panel=_TRAINING)
    ] = 5,
    epochs: Annotated[
        int,
        typer.Option(
            help="Epochs after those that train all layers.", min=0, rich_help_panel=_TRAINING
        ),
    ] = 15,
    learning_rate: Annotated[
        float,
        typer.Option(
            help="Initial learning rate of the head; it falls to 0 as a cosine.",
            min=0.0,
            rich_help_panel=_TRAINING,
        ),
    ] = 1e-3,
    backbone_rate: Annotated[
        float,
        typer.Option(
            help="Factor on the learning rate of the backbone's last layer; its first layer gets "
            "the square.",
            min=0.0,
            max=1.0,
            rich_help_panel=_TRAINING,
        ),
    ] = 0.1,
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay of AdamW.", min=0.0, rich_help_panel=_TRAINING)
    ] = 1e-4,
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after N epochs without a better validation mAP; 0 never stops early.",
            min=0,
            metavar="N",
            rich_help_panel=_TRAINING,
        ),
    ] = 5,
    class_weights: Annotated[
        bool,
        typer.Option(
            "--class-weights", help="Weigh rare positive labels more.", rich_help_panel=_TRAINING
        ),
    ] = False,
    mixed_precision: Annotated[
        bool,
        typer.Option(
            "--mixed-precision", help="Compute in float16, for GPUs.", rich_help_panel=_TRAINING
        ),
    ] = False,
    scale: Annotated[
        float,
        typer.Option(
            help="Smallest fraction of the area that a random crop keeps; 1 disables cropping.",
            min=0.01,
            max=1.0,
            rich_help_panel=_AUGMENTATION,
        ),
    ] = 0.4,
    flip: Annotated[
        bool, typer.Option(help="Mirror half of the images.", rich_help_panel=_AUGMENTATION)
    ] = True,
    colour: Annotated[
        float,
        typer.Option(
            help="Largest relative change of brightness, contrast and saturation.",
            min=0.0,
            max=1.0,
            rich_help_panel=_AUGMENTATION,
        ),
    ] = 0.2,
    hide: Annotated[
        float,
        typer.Option(
            help="Hide-and-seek: probability that a patch of the image is hidden.",
            min=0.0,
            max=1.0,
            rich_help_panel=_AUGMENTATION,
        ),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(help="Random seed of weights, image order and variations.", min=0)
    ] = 0,
    heatmaps: Annotated[
        int,
        typer.Option(
            help="Log heatmaps of 16 validation images every N epochs, for TensorBoard. 0 logs "
            "none.",
            min=0,
            metavar="N",
        ),
    ] = 0,
    layout: options.Layout = None,
    images: options.Images = None,
    clip: options.Clip = False,
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

    import_modules(imports or ())
    if not tf.config.list_physical_devices("GPU"):
        # Cheap on a CPU. On a GPU some operations have no deterministic kernel and would fail.
        tf.config.experimental.enable_op_determinism()
    if resume:
        configuration = training.read_plan(out)
    else:
        chosen = options_of(context, training.TrainingConfiguration)
        chosen["classes"] = tuple(classes or ())
        chosen["preprocess"] = pixel_scale(preprocess, scale_pixels)
        chosen["augmentation"] = training.Augmentation(scale, flip, colour, hide)
        configuration = training.TrainingConfiguration(**chosen)
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
