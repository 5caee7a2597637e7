"""`kgradcam explain`: draws where a model sees a class."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam import progress
from kgradcam.cli import completion, options
from kgradcam.cli.groups import ModelOptions
from kgradcam.cli.image_files import Images, open_images, output_files
from kgradcam.cli.output import note, print_json, print_table
from kgradcam.cli.parsing import image_size as parse_size
from kgradcam.cli.parsing import layer_paths
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UsageError, UserError, did_you_mean

_ON_A_SHEET = 60


def explain(
    context: typer.Context,
    *,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images to explain, folders of them, globs, or addresses (http, https).",
            metavar="IMAGE...",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            help="Image file to write; or a folder, for a file for each image, and a contact sheet "
            "of several.",
            metavar="FILE.png|DIR",
            show_default="the folder explained",
        ),
    ] = None,
    model: options.Model = "resnet50",
    loading: ModelOptions,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class by name, index or group; repeat for several. Of one sigmoid unit: "
            "positive or negative. Default: the top class.",
            metavar="NAME|INDEX",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Why --class and not this one: evidence that both share cancels; repeat for more.",
            metavar="NAME|INDEX",
            show_default=False,
        ),
    ] = None,
    layer: options.Layer = None,
    image_size: options.ImageSize = "own",
    method: options.Method = "gradcam",
    precision: options.Precision = "float32",
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Also draw another method or model; repeat for more. MODEL=FILE sets the model's "
            "weights.",
            metavar="METHOD|MODEL[=FILE]",
            show_default=False,
            autocompletion=completion.methods_and_models,
        ),
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Measure how faithful the heatmaps are to the model.")
    ] = False,
    draw_boxes: Annotated[
        bool,
        typer.Option(
            "--draw-boxes", help="Draw the boxes around the heat; low scores give pale boxes."
        ),
    ] = False,
    overlay_only: Annotated[
        bool,
        typer.Option(
            "--overlay-only",
            help="Write the image with its heat and nothing else, at the size of the image.",
        ),
    ] = False,
    colormap: options.Colormap = "viridis",
    max_pixels: options.MaxPixels = None,
    as_json: options.AsJson = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw where a model sees a class in an image.

    Example:
        kgradcam explain cat.jpg --model efficientnet-lite0 --class tabby --out overlay.png
    """
    if against and metrics:
        raise UsageError("--metrics measures the score of a class, not a difference. Omit one.")
    import_tensorflow(quiet)
    import numpy as np
    import tensorflow as tf

    from kgradcam.data.images import read_image
    from kgradcam.heatmaps.methods import METHODS
    from kgradcam.models.classifier import OWN, load_classifier
    from kgradcam.models.network import require_model
    from kgradcam.pictures.blending import heat_colors
    from kgradcam.pictures.drawing import draw_explanations, draw_overlays
    from kgradcam.pictures.explain_images import LARGEST_DRAWN, ImageExplainer
    from kgradcam.pictures.figures import SUFFIXES, save

    # Optimizing a graph takes longer than running it on a few images.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    size = OWN if image_size == OWN else parse_size(image_size)
    others = [name.partition("=") for name in compare or () if name not in METHODS]
    _require_models([name for name, _, _ in others])
    require_model(model)
    heat_colors(np.zeros(0), colormap)  # raises if it is mistyped
    downloads = context.with_resource(tempfile.TemporaryDirectory(prefix="kgradcam-"))
    opened = open_images(images, Path(downloads))  # before the model and its weights are loaded
    paths = opened.readable
    inputs = (model, loading.weights, loading.names)
    files, sheet = output_files(out, paths, force, inputs, SUFFIXES)
    if overlay_only and len(paths) > 1:
        if not files:
            raise UsageError(
                "--overlay-only writes a file for each image. Give --out a folder for several."
            )
        sheet = None
    draw = draw_overlays if overlay_only else _draw_row
    classifiers = [
        loading.load(model, size),
        *(
            load_classifier(name, file or "imagenet", size, trusted=loading.trust_model)
            for name, _, file in others
        ),
    ]
    explainer = ImageExplainer(
        classifiers,
        classes or (),
        layer_paths(layer),
        size,
        [method, *(name for name in compare or () if name in METHODS)],
        metrics,
        precision,
        against or (),
        None if overlay_only else LARGEST_DRAWN,
        draw_boxes,
    )
    rows, findings, written = [], [], []
    with progress.bar("images", len(paths), "images", quiet or len(paths) == 1, True) as advance:
        for i, path in enumerate(paths):
            try:
                photograph = read_image(path, upright=True)
            except UserError as error:
                opened.refused[path] = str(error)
                continue
            explained = explainer(path, photograph)
            rows.append(explained.row)
            findings += explained.findings
            if files:
                save(draw(explained.row, colormap), files[i])
                written.append(files[i])
            advance(1)
    opened.note_refused()
    if sheet is not None and (len(rows) > 1 or not files):
        save(
            draw(rows[0], colormap)
            if len(rows) == 1
            else draw_explanations(rows[:_ON_A_SHEET], colormap),
            sheet,
        )
        written.append(sheet)
        if len(rows) > _ON_A_SHEET:
            note(f"{sheet} shows the first {_ON_A_SHEET} of {len(rows)} images.", quiet)
    if as_json:
        print_json(
            {
                "picture": str(written[-1]),
                "pictures": [str(path) for path in written],
                "findings": [_as_json(each, opened) for each in findings],
                "left_out": {opened.name(path): why for path, why in opened.refused.items()},
            }
        )
        return
    if metrics:
        _print_measures(findings, quiet)
    else:
        for each in findings:
            subject = f"{each.model} {each.method} " if compare else ""
            note(f"{opened.name(each.image)}: {subject}{each.class_name} {each.certainty}", quiet)
    _note_doubts(findings, quiet)
    for path in written:
        typer.echo(path)


def _note_doubts(findings: Sequence[Any], quiet: bool) -> None:
    """Notes heatmaps that mark no place, and the conditions of all heatmaps."""
    for each in findings:
        if each.is_empty:
            note(
                f"The heatmap of {each.class_name} by {each.method} on {each.image.name} has the "
                "same value everywhere, so it marks no place. Try another --layer or --method.",
                quiet,
            )
    for line in dict.fromkeys(each.conditions for each in findings):
        note(line, quiet)


def _require_models(names: Sequence[str]) -> None:
    from kgradcam.heatmaps.methods import METHODS
    from kgradcam.models.network import is_model, model_names

    for name in names:
        if not is_model(name):
            known = [*METHODS, *model_names()]
            raise UserError(
                "--compare must be a method, a model name, a model file or a model folder. "
                f"Received: {name!r}."
                f"{did_you_mean(name, known)} Methods: {', '.join(METHODS)}."
            )


def _draw_row(row: Any, colormap: str) -> Any:
    from kgradcam.pictures.drawing import draw_explanations

    return draw_explanations([row], colormap)


def _as_json(finding: Any, images: Images) -> dict[str, Any]:
    """A finding in plain values; JSON has no NaN."""
    values = asdict(finding)
    boxes, scores = values.pop("boxes").round(2).tolist(), values.pop("box_scores").tolist()
    numbers = {**finding.measures, "probability": finding.probability, "score": finding.score}
    finite = {name: each if math.isfinite(each) else None for name, each in numbers.items()}
    return {
        **values,
        "image": images.name(finding.image),
        "boxes": [{"box": box, "score": score} for box, score in zip(boxes, scores, strict=True)],
        "probability": finite["probability"],
        "score": finite["score"],
        "measures": {name: finite[name] for name in finding.measures},
    }


def _print_measures(findings: Sequence[Any], quiet: bool) -> None:
    from kgradcam.metrics.faithfulness import MEASURES

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
