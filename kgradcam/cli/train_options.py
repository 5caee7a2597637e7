"""The options of `train` that make the configuration of a training."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from kgradcam.cli import completion, options
from kgradcam.cli.config_file import options_of
from kgradcam.cli.parsing import pixel_scale

_NETWORK, _TRAINING, _AUGMENTATION = "Network", "Training", "Random variations of images"


@dataclass(frozen=True)
class TrainOptions:
    """The options of a training: its data set, network, stages and augmentation."""

    dataset: Annotated[str, typer.Option(help=options.DATASET)] = "voc/2007"
    split: Annotated[
        str | None,
        typer.Option(help="Training split. Default: train, or all for a folder without that list."),
    ] = None
    validation_split: Annotated[
        str | None,
        typer.Option(
            help="Validation split, or the fraction of the training images to hold out, such as "
            "0.2. Default: the dataset's validation split, or 0.2 without one.",
            metavar="NAME|FRACTION",
        ),
    ] = None
    test_split: Annotated[
        str | None, typer.Option(help="A split that is evaluated once, after training.")
    ] = None
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class to recognize; repeat for several. Default: those of the training split.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None
    model: Annotated[
        str,
        typer.Option(help=f"The backbone: {options.MODEL}", autocompletion=completion.models),
    ] = "resnet50"
    weights: Annotated[
        str,
        typer.Option(
            help="imagenet, or a weights file. Layers that a .npz file lacks start from random "
            "weights.",
            metavar="imagenet|FILE",
        ),
    ] = "imagenet"
    preprocess: options.Preprocess = None
    scale_pixels: options.ScalePixels = False
    imports: options.Imports = None
    last_layer: Annotated[
        str | None,
        typer.Option(
            help="Cut the backbone after this layer. Default: its last one with height and width.",
            metavar="NAME",
            rich_help_panel=_NETWORK,
        ),
    ] = None
    dilation: Annotated[
        bool,
        typer.Option(
            "--dilation",
            help="Double the last feature maps: remove the last stride and dilate the convolutions "
            "after it.",
            rich_help_panel=_NETWORK,
        ),
    ] = False
    frozen_until: Annotated[
        str | None,
        typer.Option(
            help="The last layer that is never trained.", metavar="NAME", rich_help_panel=_NETWORK
        ),
    ] = None
    cached_views: Annotated[
        int,
        typer.Option(
            help="Compute the frozen layers once for N variations of each image and keep their "
            "output on disk. Many times faster on CPUs.",
            min=0,
            metavar="N",
            rich_help_panel=_TRAINING,
        ),
    ] = 0
    image_size: Annotated[
        int,
        typer.Option(
            help="Height and width of the training images in pixels.",
            min=16,
            rich_help_panel=_TRAINING,
        ),
    ] = 224
    batch_size: Annotated[
        int, typer.Option(help="Images in a batch.", min=1, rich_help_panel=_TRAINING)
    ] = 32
    head_epochs: Annotated[
        int, typer.Option(help="Epochs that train the head only.", min=0, rich_help_panel=_TRAINING)
    ] = 5
    epochs: Annotated[
        int,
        typer.Option(
            help="Epochs after those that train all layers.", min=0, rich_help_panel=_TRAINING
        ),
    ] = 15
    learning_rate: Annotated[
        float,
        typer.Option(
            help="Initial learning rate of the head; it falls to 0 as a cosine.",
            min=0.0,
            rich_help_panel=_TRAINING,
        ),
    ] = 1e-3
    backbone_rate: Annotated[
        float,
        typer.Option(
            help="Factor on the learning rate of the backbone's last layer; its first layer gets "
            "the square.",
            min=0.0,
            max=1.0,
            rich_help_panel=_TRAINING,
        ),
    ] = 0.1
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay of AdamW.", min=0.0, rich_help_panel=_TRAINING)
    ] = 1e-4
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after N epochs without a better validation mAP; 0 never stops early.",
            min=0,
            metavar="N",
            rich_help_panel=_TRAINING,
        ),
    ] = 5
    class_weights: Annotated[
        bool,
        typer.Option(
            "--class-weights", help="Weigh rare positive labels more.", rich_help_panel=_TRAINING
        ),
    ] = False
    mixed_precision: Annotated[
        bool,
        typer.Option(
            "--mixed-precision", help="Compute in float16, for GPUs.", rich_help_panel=_TRAINING
        ),
    ] = False
    scale: Annotated[
        float,
        typer.Option(
            help="Smallest fraction of the area that a random crop keeps; 1 disables cropping.",
            min=0.01,
            max=1.0,
            rich_help_panel=_AUGMENTATION,
        ),
    ] = 0.4
    flip: Annotated[
        bool, typer.Option(help="Mirror half of the images.", rich_help_panel=_AUGMENTATION)
    ] = True
    colour: Annotated[
        float,
        typer.Option(
            help="Largest relative change of brightness, contrast and saturation.",
            min=0.0,
            max=1.0,
            rich_help_panel=_AUGMENTATION,
        ),
    ] = 0.2
    hide: Annotated[
        float,
        typer.Option(
            help="Hide-and-seek: probability that a patch of the image is hidden.",
            min=0.0,
            max=1.0,
            rich_help_panel=_AUGMENTATION,
        ),
    ] = 0.0
    seed: Annotated[
        int, typer.Option(help="Random seed of weights, image order and variations.", min=0)
    ] = 0
    layout: options.Layout = None
    images: options.Images = None
    clip: options.Clip = False

    def configuration(self, context: typer.Context) -> Any:
        """Returns the `TrainingConfiguration` of a new training."""
        from kgradcam.training import Augmentation, TrainingConfiguration

        chosen: dict[str, Any] = {
            "classes": tuple(self.classes or ()),
            "preprocess": pixel_scale(self.preprocess, self.scale_pixels),
            "augmentation": Augmentation(self.scale, self.flip, self.colour, self.hide),
        }
        return TrainingConfiguration(**options_of(context, TrainingConfiguration) | chosen)
