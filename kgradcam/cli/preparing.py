"""`demo`, `prepare` and `env`: data to start from, and what kgradcam runs on."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli.options import (
    AsJson,
    DataDir,
    Force,
    MaxPixels,
    Quiet,
)
from kgradcam.cli.output import (
    import_tensorflow,
    note,
    print_json,
    print_table,
    report_skipped,
)


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.", metavar="DIR")] = Path("demo"),
    data_dir: DataDir = None,
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Detect, evaluate and visualize on pictures that need no download.

    [dim]kgradcam demo --out demo[/dim]
    """
    import_tensorflow()
    from kgradcam.cli.run_demo import run_demo

    evaluation, picture = run_demo(out, data_dir=data_dir, force=force, quiet=quiet)
    if as_json:
        typer.echo(evaluation.to_json().rstrip())
        return
    print_table(evaluation.title, *evaluation.table())
    typer.echo(picture)


def prepare(
    devkit: Annotated[Path, typer.Option(help="An unpacked VOCdevkit.", metavar="DIR")],
    year: Annotated[str, typer.Option(help="2007 or 2012.")],
    data_dir: DataDir = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if an image or its annotation cannot be read.")
    ] = False,
    max_pixels: MaxPixels = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write voc/2007 or voc/2012 of tensorflow-datasets from an unpacked devkit.

    [dim]kgradcam prepare --devkit VOCdevkit --year 2007[/dim]
    """
    import_tensorflow()
    from kgradcam.data.voc_builder import prepare as write_dataset

    folder, counts, skipped = write_dataset(devkit, year, data_dir, strict, quiet)
    report_skipped([{"file": name, "reason": reason} for name, reason in skipped])
    note(", ".join(f"{split}: {count} images" for split, count in counts.items()), quiet)
    if as_json:
        told = [{"file": name, "reason": reason} for name, reason in skipped]
        print_json({"folder": str(folder), "images": counts, "skipped": told})
    else:
        typer.echo(folder)


def env(as_json: AsJson = False) -> None:
    """Show versions, devices and where data are kept: for bug reports.

    [dim]kgradcam env[/dim]
    """
    import_tensorflow()
    from kgradcam.cli.environment import describe

    if as_json:
        print_json(describe())
        return
    for name, value in describe().items():
        typer.echo(f"{name:24}{value}")
