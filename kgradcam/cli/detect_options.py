"""The options of `detect` that make the configuration of a run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam import progress
from kgradcam.cli import options
from kgradcam.cli.config_file import given_options, options_of
from kgradcam.cli.groups import ModelOptions
from kgradcam.cli.parsing import (
    box_rules,
    class_mapping,
    image_size,
    joined,
    layer_paths,
    pixel_scale,
)
from kgradcam.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run: its data set, model, heatmaps and boxes."""

    dataset: Annotated[str, typer.Option(help=options.DATASET)] = "voc/2007"
    split: Annotated[
        str | None,
        typer.Option(
            help="A split of the dataset. held-out: the images that the training of --model held "
            "out.",
            metavar="NAME",
            show_default="test, else all",
        ),
    ] = None
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class of the dataset, or all; repeat for several. NAME=TARGET maps it to "
            'outputs of the model: kangaroo=104, dog=151-268, cat=tabby,"tiger cat".',
            metavar="NAME[=TARGET]",
            show_default="all",
        ),
    ] = None
    class_map: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            help='TOML file of targets by class, as "Felis catus" = "281-285"; with --class all '
            "its classes count.",
            metavar="FILE.toml",
            show_default=False,
        ),
    ] = None
    listed: Annotated[
        str | None,
        typer.Option(
            "--list",
            help="Text file of pictures, instead of --dataset; one path a line.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None
    model: options.Model = "resnet50"
    loading: ModelOptions
    method: options.Method = "gradcam"
    layer: options.Layer = None
    precision: options.Precision = "auto"
    jit_compile: Annotated[
        bool | None,
        typer.Option(
            "--xla/--no-xla",
            help="Compile with XLA, once for each image shape.",
            show_default="xla on a GPU, for images of one size",
        ),
    ] = None
    boxes: Annotated[
        str,
        typer.Option(
            help="levels: boxes at many heat levels, scored, overlaps removed. single-threshold: "
            "one fixed threshold, as in the 2021 scripts.",
            metavar="levels|single-threshold",
        ),
    ] = "levels"
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Images of 416 pixels: a seventh less computation."),
    ] = False
    size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            help="native keeps the image's size; N resizes to N x N pixels.",
            metavar="native|N|WxH",
            show_default="twice the size that a model folder or file was trained at, at most 448; "
            "416 with --fast, native with --boxes single-threshold",
        ),
    ] = None
    scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Scale factor of the images for the model; repeat to average heatmaps.",
            metavar="FACTOR",
            show_default="1",
        ),
    ] = None
    score_scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Scale factor at which classes are scored instead; repeat to average.",
            metavar="FACTOR",
            show_default="0.5, or the size of the training; none with --fast, --scale or --boxes "
            "single-threshold",
        ),
    ] = None
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Spread heat to pixels of similar colour and features.",
            show_default="refine; no-refine with --boxes single-threshold",
        ),
    ] = None
    presence: Annotated[
        str,
        typer.Option(
            help="Classes to localize in an image: the annotated ones, or those that the model "
            "predicts.",
            metavar="annotated|predicted",
        ),
    ] = "annotated"
    presence_threshold: Annotated[
        float,
        typer.Option(help="Minimum probability of a predicted class.", min=0.0, max=1.0),
    ] = 0.05
    heatmap_dtype: Annotated[
        str,
        typer.Option(
            help="How heatmaps are stored: exactly, or rounded in half the size.",
            metavar="float32|uint16",
        ),
    ] = "float32"
    batch_size: Annotated[int, typer.Option(help="Images of equal shape in a batch.", min=1)] = 16
    threshold: options.Thresholds = None
    radius: Annotated[
        int | None,
        typer.Option(
            help="Smoothing radius in pixels.",
            min=0,
            show_default="0; 20 with --boxes single-threshold",
        ),
    ] = None
    score: Annotated[
        str | None,
        typer.Option(
            help="Confidence of boxes: the IoU to expect, heat and its density, heat alone, or "
            "constant.",
            metavar="expected-iou|density|heat|constant",
            show_default="expected-iou; heat with --boxes single-threshold",
        ),
    ] = None
    limit: Annotated[
        int | None, typer.Option(help="Take at most N images, drawn at random.", min=1)
    ] = None
    seed: Annotated[int, typer.Option(help="Random seed of --limit.")] = 0
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")
    ] = False
    layout: options.Layout = None
    images: options.Images = None
    clip: options.Clip = False
    max_pixels: options.MaxPixels = None

    def configuration(self, context: typer.Context, quiet: bool) -> tuple[Any, Any]:
        """Returns the `Configuration` of a new run, and its model if it had to be loaded.

        Raises:
            UsageError: The options contradict one another.
        """
        from kgradcam.boxes.options import DEFAULT_THRESHOLDS
        from kgradcam.runs.configuration import Configuration

        box_options = box_rules(self.boxes, self.radius, self.score)
        plain = self.boxes == "single-threshold"
        if self.fast and (plain or self.scale):
            raise UsageError(
                "--fast means one scale and --boxes levels. Leave out --scale and --boxes "
                "single-threshold, or --fast."
            )
        chosen: dict[str, Any] = {
            "classes": tuple(self.classes or ["all"]),
            "layer": layer_paths(self.layer),
            "preprocess": pixel_scale(self.loading.preprocess, self.loading.scale_pixels),
            "scales": tuple(self.scale or (1.0,)),
            "refine": not plain if self.refine is None else self.refine,
            "thresholds": tuple(joined(self.threshold) or DEFAULT_THRESHOLDS[self.boxes]),
            "boxes": box_options,
            "trusted": self.loading.trust_model,
            "class_map": class_mapping(self.class_map),
        }
        if self.listed:
            if "dataset" in given_options(context) or self.layout not in (None, "list"):
                raise UsageError("Give either --list FILE or --dataset.")
            chosen |= {"dataset": self.listed, "layout": "list"}
        configuration = Configuration(**options_of(context, Configuration) | chosen)
        return self._with_sizes(configuration, plain, quiet)

    def _with_sizes(self, configuration: Any, plain: bool, quiet: bool) -> tuple[Any, Any]:
        """Sets the size of images, and the factors of it at which classes are scored."""
        from kgradcam.runs.explaining import default_size

        factor: float | None = 0.5
        opened: Any = None
        if self.size is None:
            with progress.step(f"loading {self.model}", quiet):
                side, factor, opened = default_size(configuration, 416 if self.fast else 448)
            size = None if plain and factor else side
        else:
            size = image_size(self.size)
        single = plain or self.fast or self.scale or factor in (None, 1.0)
        score_scales: Any = tuple(self.score_scale or (() if single else (factor,)))
        return replace(configuration, image_size=size, score_scales=score_scales), opened
