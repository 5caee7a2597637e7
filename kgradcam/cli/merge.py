"""`kgradcam merge`: merges the shards of a planned run."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note, print_json, report_skipped


def merge(
    run: Annotated[Path, typer.Argument(help="A run that detect --plan has planned.")],
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge the shards of a planned run into a run.

    It checks that all are there, and else prints the commands that compute the missing ones.

    Example:
        kgradcam merge runs/cats
    """
    from kgradcam.runs.merging import merge as merge_run

    merged = merge_run(run, report=lambda line: note(line, quiet))
    run = merged.folder  # a URL in full
    skipped = [asdict(each) for each in merged.info.skipped]
    report_skipped(skipped)
    counts = merged.info.counts
    note(f"{counts.images} images, {counts.heatmaps} heatmaps.", quiet)
    if as_json:
        print_json({"run": str(run), "counts": asdict(counts), "skipped": skipped})
    else:
        typer.echo(run)
