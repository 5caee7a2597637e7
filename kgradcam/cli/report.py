"""`kgradcam report`: writes a run as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import require_absent
from kgradcam.cli.parsing import joined
from kgradcam.cli.startup import import_tensorflow


def report(
    run: options.RunFolder,
    out: Annotated[Path, typer.Option(help="HTML file to write.", metavar="FILE.html")],
    threshold: options.Thresholds = None,
    iou: options.Ious = None,
    protocol: options.Protocol = "voc2010",
    count: Annotated[
        int, typer.Option(help="Number of heatmaps in the gallery, the worst first.", min=0)
    ] = 1000,
    picture_size: Annotated[
        int, typer.Option(help="Longer side of the gallery's images in pixels.", min=16, max=2048)
    ] = 256,
    dataset: options.MovedDataset = None,
    data_dir: options.DataDir = None,
    max_pixels: options.MaxPixels = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a run as one HTML page.

    Tables, curves, and a gallery with a threshold slider.

    Example:
        kgradcam report runs/cat --out report.html
    """
    import_tensorflow(quiet)
    from kgradcam.files import write_atomically
    from kgradcam.metrics.protocol import find_protocol
    from kgradcam.pictures.report import build_report
    from kgradcam.runs.run import Run

    require_absent(out, force, suffixes=(".html", ".htm"))
    page = build_report(
        Run(run),
        joined(threshold) or None,
        joined(iou) or [0.3, 0.4, 0.5],
        find_protocol(protocol),
        count=count,
        picture_size=picture_size,
        data_dir=data_dir,
        dataset=dataset,
        quiet=quiet,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page)
    typer.echo(out)
