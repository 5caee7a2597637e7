"""`kgradcam explain`: draws where a model sees a class."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note, print_json, print_table, require_absent
from kgradcam.cli.parsing import layer_paths, side_length
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UserError, did_you_mean


def explain(
    images: Annotated[list[Path], typer.Argument(help="Images to explain.", metavar="IMAGE...")],
    out: Annotated[Path, typer.Option(help="Image file to write.", metavar="FILE.png")],
    model: Annotated[str, typer.Option(help=options.MODEL)] = "resnet50",
    weights: options.Weights = "imagenet",
    preprocess: options.Preprocess = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class by name, index or group; repeat for several. Default: the top class.",
            metavar="NAME|INDEX",
            show_default=False,
        ),
    ] = None,
    layer: options.Layer = None,
    image_size: options.ImageSize = "native",
    method: options.Method = "gradcam",
    precision: options.Precision = "float32",
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Also draw another method or model; repeat for more. MODEL=FILE sets the model's "
            "weights.",
            metavar="METHOD|MODEL[=FILE]",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Measure how faithful the heatmaps are to the model.")
    ] = False,
    trust_model: options.TrustModel = False,
    max_pixels: options.MaxPixels = None,
    as_json: options.AsJson = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw where a model sees a class in an image.

    Example:
        kgradcam explain cat.jpg --model efficientnet-lite0 --class tabby --out overlay.png
    """
    import_tensorflow()
    import tensorflow as tf

    from kgradcam.data.images import image_size as picture_extent
    from kgradcam.heatmaps.methods import METHODS
    from kgradcam.metrics.faithfulness import MEASURES
    from kgradcam.models.classifier import load_classifier
    from kgradcam.models.network import is_model, model_names, require_model
    from kgradcam.pictures.explain_images import explain_images
    from kgradcam.pictures.figures import SUFFIXES, save

    require_absent(out, force, *images, model, weights, suffixes=SUFFIXES)
    # Optimizing a graph takes longer than running it on a few images.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    size = side_length(image_size)
    others = [name.partition("=") for name in compare or () if name not in METHODS]
    for name, _, _ in others:
        if not is_model(name):
            known = [*METHODS, *model_names()]
            raise UserError(
                f"--compare must be a method, a model name, a .keras file or a model folder. "
                f"Received: {name!r}."
                f"{did_you_mean(name, known)} Methods: {', '.join(METHODS)}."
            )
    require_model(model)
    for image in images:  # fails before the model and its weights are loaded
        picture_extent(image)
    classifiers = [load_classifier(model, weights, size, preprocess, trust_model)]
    classifiers += [
        load_classifier(name, file or "imagenet", size, trusted=trust_model)
        for name, _, file in others
    ]
    methods = [method, *(name for name in compare or () if name in METHODS)]
    figure, findings = explain_images(
        images, classifiers, classes or (), layer_paths(layer), size, methods, metrics, precision
    )
    save(figure, out)
    if as_json:
        found = [
            {
                **asdict(each),
                "image": str(each.image),
                "measures": {
                    name: value if math.isfinite(value) else None
                    for name, value in each.measures.items()
                },
            }
            for each in findings
        ]
        print_json({"picture": str(out), "findings": found})
        return
    if metrics:
        for name, meaning in MEASURES.items():
            if name in findings[0].measures:
                note(f"{name}: {meaning}", quiet)
        print_table(
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
            subject = f"{each.model} {each.method} " if compare else ""
            note(f"{each.image}: {subject}{each.class_name} {each.certainty}", quiet)
    precisions = sorted({each.precision for each in findings})
    note(f"Computed in {', '.join(precisions)}.", quiet)
    typer.echo(out)
