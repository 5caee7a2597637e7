"""`kgradcam explore`: a page on this machine to look at heatmaps."""

import importlib.util
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.groups import ModelOptions
from kgradcam.cli.output import note, report_skipped
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UserError


def explore(
    *,
    model: options.Model = "efficientnet-lite0",
    loading: ModelOptions,
    dataset: Annotated[
        str | None,
        typer.Option(help=f"Images to choose from. {options.DATASET}", metavar="FOLDER|NAME"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the dataset. Default: test, else all.")
    ] = None,
    data_dir: options.DataDir = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 is any.", min=0, max=65535)
    ] = 7860,
    max_pixels: options.MaxPixels = None,
    quiet: options.Quiet = False,
) -> None:
    """Serve a page to look at heatmaps in.

    Drop a picture, and choose class, layer, method and threshold. Ctrl-C ends it.

    Example:
        kgradcam explore --model efficientnet-lite0
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError('explore needs Gradio: pip install "kgradcam[explore]"')
    import_tensorflow(quiet)
    from kgradcam.data.sources import open_dataset
    from kgradcam.models.classifier import OWN
    from kgradcam.pictures.explorer import Explorer
    from kgradcam.pictures.explorer_page import MAX_LISTED, is_loopback, listen, serve

    listening = listen(host, port)  # before the model and its weights are loaded
    if not is_loopback(listening.getsockname()[0]):
        note(
            f"Warning: --host {host} lets every machine that reaches this one use the page and "
            "see the dataset. It asks for no password and does not encrypt."
        )
    chosen = open_dataset(dataset, split, data_dir, quiet) if dataset else None
    if chosen is not None:
        report_skipped([{"file": name, "reason": reason} for name, reason in chosen.left_out()])
        if len(chosen.examples) > MAX_LISTED:
            note(f"The page lists the first {MAX_LISTED} of {len(chosen.examples)} images.", quiet)
    classifier = loading.load(model, OWN)

    def announce(url: str) -> None:
        typer.echo(url)
        note("Ctrl-C ends the page.", quiet)

    with listening:
        serve(Explorer(classifier, chosen), listening, announce)
