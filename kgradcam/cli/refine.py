"""`kgradcam refine`: the refined boxes of a run, as COCO detections."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note, require_absent


def refine(
    run: options.RunFolder,
    refiner: Annotated[Path, typer.Option(help="Refiner of train-refiner.", metavar="FILE.json")],
    out: Annotated[Path, typer.Option(help="COCO detections to write.", metavar="FILE.json")],
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Refine the boxes of a run, from its stored heatmaps.

    A refiner of the rung `network` opens the model and the images of the run again.

    `kgradcam evaluate --detections FILE --ground-truth RUN/ground_truth.json` measures them.

    Example:
        kgradcam refine runs/test --refiner refiner.json --out refined.json
    """
    from kgradcam import progress
    from kgradcam.refine import load_refiner, refine_run
    from kgradcam.runs.coco_files import write_detections
    from kgradcam.runs.run import Run

    opened = Run(run)
    inputs = (refiner, run / "run.json", run / "ground_truth.json", *run.glob("detections-*.json"))
    require_absent(out, force, *inputs, suffixes=(".json",))
    with progress.bar("boxes", opened.info.counts.heatmaps, "heatmaps", quiet) as advance:
        found = refine_run(opened, load_refiner(refiner), advance)
    write_detections(out, found)
    note(f"{len(found.boxes)} boxes.", quiet)
    typer.echo(out)
