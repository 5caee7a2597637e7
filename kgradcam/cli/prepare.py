"""`kgradcam prepare`: writes a VOC dataset of tensorflow-datasets from a devkit."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note, print_json, report_skipped
from kgradcam.cli.startup import import_tensorflow


def prepare(
    devkit: Annotated[Path, typer.Option(help="Folder of the unpacked VOCdevkit.", metavar="DIR")],
    year: Annotated[str, typer.Option(help="Year of VOC: 2007 or 2012.")],
    data_dir: options.DataDir = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if an image or its annotation cannot be read.")
    ] = False,
    clip: options.Clip = False,
    max_pixels: options.MaxPixels = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Write voc/2007 or voc/2012 from an unpacked devkit.

    In the format of tensorflow-datasets.

    Example:
        kgradcam prepare --devkit VOCdevkit --year 2007
    """
    import_tensorflow(quiet)
    from kgradcam.data.sources import data_folder
    from kgradcam.data.voc_builder import prepare as write_dataset

    folder, counts, left_out = write_dataset(
        devkit, year, data_folder(data_dir), strict, quiet, clip
    )
    skipped = [{"file": name, "reason": reason} for name, reason in left_out]
    report_skipped(skipped)
    note(", ".join(f"{split}: {count} images" for split, count in counts.items()), quiet)
    if as_json:
        print_json({"folder": str(folder), "images": counts, "skipped": skipped})
    else:
        typer.echo(folder)
