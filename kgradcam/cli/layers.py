"""`kgradcam layers`: lists the layers that can be explained."""

from typing import Annotated

import typer

from kgradcam.cli.options import AsJson, Imports, ModelArgument, Output, TrustModel
from kgradcam.cli.output import print_json, print_table
from kgradcam.cli.startup import import_tensorflow


def layers(
    model: ModelArgument,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights to load. Default: none, since only shapes are listed."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All layers, not only the last one of each stride.")
    ] = False,
    output: Output = None,
    imports: Imports = None,
    trust_model: TrustModel = False,
    as_json: AsJson = False,
) -> None:
    """List the layers that can be explained, and the default.

    Example:
        kgradcam layers resnet50
    """
    import_tensorflow()
    from kgradcam.heatmaps.default_layer import last_of_each_stride, list_layers
    from kgradcam.models.classifier import OWN, load_classifier
    from kgradcam.models.own_layers import import_modules

    import_modules(imports or ())
    classifier = load_classifier(model, weights, OWN, trusted=trust_model, output=output)
    calls, default = list_layers(classifier.model)
    sized = classifier.at_own_size()
    # A map of 1 x 1 at the model's own size is none there, so the default is that of any size.
    of_size = {call.path: call for call in list_layers(sized.model)[0]}
    calls = [of_size.get(call.path, call) for call in calls]
    default = of_size.get(default.path, default)
    if as_json:
        described = [
            {
                "layer": call.path,
                "type": type(call.layer).__name__,
                "shape": list(call.shape),
                "default": call is default,
            }
            for call in calls
        ]
        print_json({"model": model, "layers": described})
        return
    shown = calls if every else last_of_each_stride(calls, default)
    lines = [
        [
            call.path,
            type(call.layer).__name__,
            " x ".join(str(size or "any") for size in call.shape),
            "default" if call is default else "",
        ]
        for call in shown
    ]
    size = "x".join(map(str, sized.own_size or ()))
    title = f"Layers of {model}{size and f' for images of {size}'}"
    if len(shown) < len(calls):
        title += f", the last of each stride; --all: all {len(calls)}"
    print_table(title, ["layer", "type", "height x width x channels", ""], lines)
