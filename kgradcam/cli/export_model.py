"""`kgradcam export-model`: writes a model and its explanations as a SavedModel."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam.cli import options
from kgradcam.cli.groups import ModelOptions
from kgradcam.cli.output import note, print_json
from kgradcam.cli.parsing import layer_paths
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UsageError, require_known


def export_model(
    model: options.ModelArgument,
    *,
    out: Annotated[
        Path, typer.Option(help="Folder to write; a file for litert and onnx.", metavar="PATH")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="saved-model; or, where Grad-CAM needs no gradients, another: no boxes.",
            metavar="saved-model|litert|litert-int8|onnx|tfjs",
        ),
    ] = "saved-model",
    loading: ModelOptions,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A class to explain, by name, index or group; repeat for several. Default: the "
            "top classes.",
            metavar="NAME|INDEX",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many top classes to explain.", min=1)] = 3,
    size: Annotated[
        str | None,
        typer.Option(
            help="Resize pictures to N x N pixels; any keeps their size. Default: the model's "
            "own size, or 224.",
            metavar="N|any",
            show_default=False,
        ),
    ] = None,
    layer: options.Layer = None,
    method: options.Method = "gradcam",
    precision: options.Precision = "float32",
    threshold: Annotated[
        float, typer.Option(help="The lowest heat level of boxes.", min=0, max=1)
    ] = 0.35,
    max_boxes: Annotated[int, typer.Option(help="Boxes of each heatmap.", min=1)] = 10,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Pixels of a picture that the graph accepts. Default: 16 million where it "
            "resizes, else 4 million.",
            min=1,
            show_default=False,
        ),
    ] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a model with its heatmaps and boxes.

    For TensorFlow Serving and others.

    Example:
        kgradcam export-model efficientnet-lite0 --out models/lite0/1
    """
    import_tensorflow(quiet)
    from kgradcam.heatmaps.methods import find_method
    from kgradcam.models.class_targets import parse_target
    from kgradcam.models.classifier import OWN
    from kgradcam.models.network import require_model
    from kgradcam.serving.converted import FORMATS, export_converted
    from kgradcam.serving.export import export_model as export
    from kgradcam.serving.requirements import require_new

    require_known("--format", form, ("saved-model", *FORMATS))
    require_new(out)
    require_model(model)
    wanted = OWN if size is None else _side(size)
    classifier = loading.load(model, wanted)
    side = _own_side(classifier) if size is None else _side(size)
    cam = find_method(method)(
        classifier.model, layer_paths(layer), preprocess=classifier.preprocess
    )
    if form != "saved-model":
        if classes or precision != "float32":
            raise UsageError("--class and --precision are for --format saved-model.")
        export_converted(cam, out, form, top=top, size=side)
        print_json({"file": str(out), "format": form}) if as_json else typer.echo(out)
        return
    count = classifier.model.output_shape[-1]
    targets = [parse_target(each, classifier.class_names, count) for each in classes or ()]
    card = export(
        cam,
        out,
        top=top,
        classes=targets or None,
        class_names=classifier.class_names,
        size=side,
        precision=precision,
        threshold=threshold,
        max_boxes=max_boxes,
        max_pixels=max_pixels,
        description=Path(model).name,
    )
    if as_json:
        print_json({"folder": str(out), "card": card})
        return
    note(f"Signatures: {', '.join(card['signatures'])}. They are described in card.md.", quiet)
    typer.echo(out)


def _own_side(classifier: Any) -> int | None:
    """The side of the model's own images; 224 if it is unknown, `None` if they are no squares."""
    width, height = classifier.own_size or (224, 224)
    return int(width) if width == height else None


def _side(text: str) -> int | None:
    if text == "any":
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= 4096):
        raise UsageError(f"--size must be any, or 1 to 4096. Received: {text!r}.")
    return int(text)
