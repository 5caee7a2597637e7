"""`kgradcam export`: writes the boxes of a run for a labelling tool."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note
from kgradcam.cli.scores import curve_of
from kgradcam.errors import UsageError


def export(
    run: options.RunFolder,
    out: Annotated[Path, typer.Option(help="Folder to write.", metavar="DIR")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="The format to write.",
            metavar="voc|coco|yolo|label-studio|cvat|csv",
        ),
    ],
    min_score: Annotated[
        float, typer.Option(help="Lowest score of a box.", min=0.0, max=1.0)
    ] = 0.0,
    min_precision: Annotated[
        float | None,
        typer.Option(
            help="Instead of --min-score: share of right boxes at IoU 0.5, measured in --labelled.",
            min=0.0,
            max=1.0,
            show_default=False,
        ),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="A run over annotated images, for --min-precision.",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Heat threshold. Default: the run's highest.", show_default=False),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="Order of the images: doubt puts those with many boxes of low scores first.",
            metavar="name|doubt",
        ),
    ] = "name",
    images: Annotated[
        str,
        typer.Option(
            help="Link or copy the pictures, or only name them.", metavar="link|copy|none"
        ),
    ] = "link",
    prefix: Annotated[
        str | None,
        typer.Option(
            help="Text before the names of images. Default: none; for label-studio "
            "/data/local-files/?d=images/.",
            show_default=False,
        ),
    ] = None,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps", help="Also write the heatmaps, as 8-bit PNG.")
    ] = False,
    dataset: options.MovedDataset = None,
    data_dir: options.DataDir = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the boxes of a run for a labelling tool.

    Example:
        kgradcam export runs/cat --format label-studio --min-score 0.2 --sort doubt --out labels
    """
    from kgradcam.cli.startup import import_tensorflow
    from kgradcam.export.folder import export_run
    from kgradcam.runs.run import Run

    if (min_precision is None) != (labelled is None):
        raise UsageError("Give both --min-precision and --labelled, or neither.")
    if min_precision is not None and labelled is not None:
        if min_score:
            raise UsageError("Give either --min-score or --min-precision.")
        min_score = curve_of(labelled, None, 0.5, quiet).lowest_score(min_precision)
        note(f"Boxes from the score {min_score:.4f} on.", quiet)
    if images != "none":
        import_tensorflow(quiet)
    labels = export_run(
        Run(run),
        out,
        form,
        min_score=min_score,
        threshold=threshold,
        order=sort,
        pictures=images,
        prefix=prefix,
        heatmaps=heatmaps,
        dataset=dataset,
        data_dir=data_dir,
        force=force,
        quiet=quiet,
    )
    count = labels.images.boxes
    note(f"{len(labels.images)} images, {count} boxes of {len(labels.categories)} classes.", quiet)
    typer.echo(out)
