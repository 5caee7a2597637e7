"""`kgradcam visualize`: draws images of a run."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import require_absent
from kgradcam.cli.startup import import_tensorflow


def visualize(
    run: options.RunFolder,
    out: Annotated[Path, typer.Option(help="Image file to write.", metavar="FILE.png")],
    count: Annotated[int, typer.Option(help="Number of images.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Random seed of the choice of images.")] = 0,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Heat threshold of the boxes. Default: the run's highest.", min=0.0, max=1.0
        ),
    ] = None,
    colormap: options.Colormap = "viridis",
    dataset: options.MovedDataset = None,
    data_dir: options.DataDir = None,
    max_pixels: options.MaxPixels = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw random images of a run, with heatmaps and boxes.

    Example:
        kgradcam visualize runs/cat --count 10 --threshold 0.25 --out ten.png
    """
    import_tensorflow(quiet)
    from kgradcam.pictures.figures import SUFFIXES, save
    from kgradcam.pictures.run_gallery import visualize_run
    from kgradcam.runs.dataset_folder import locate_dataset
    from kgradcam.runs.run import Run

    opened = Run(run)
    require_absent(out, force, locate_dataset(opened, dataset), suffixes=SUFFIXES)
    save(visualize_run(opened, threshold, count, seed, data_dir, dataset, colormap), out)
    typer.echo(out)
