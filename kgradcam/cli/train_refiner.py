"""`kgradcam train-refiner`: learns from a few annotated boxes to move and score boxes."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note, print_json, require_absent


def train_refiner(
    run: options.RunFolder,
    out: Annotated[Path, typer.Option(help="Refiner to write.", metavar="FILE.json")],
    boxes: Annotated[
        int | None,
        typer.Option(
            help="Annotated boxes to learn from, drawn at random.", min=1, show_default="all"
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Learn from this class only; repeat for several."),
    ] = None,
    rung: Annotated[
        str,
        typer.Option(
            help="offsets: four numbers. score: the order of boxes. ridge: score and offsets. "
            "network: both, with features of the network in the box. imitation, dqn: a policy "
            "moves boxes in steps.",
            metavar="offsets|score|ridge|network|imitation|dqn",
        ),
    ] = "network",
    seed: Annotated[int, typer.Option(help="Random seed of --boxes and of policies.")] = 0,
    as_json: options.AsJson = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Learn from a few annotated boxes to refine others.

    The rungs network, imitation and dqn open the model and the images of the run again; the others
    need neither. A refiner also helps classes that it has never seen.

    Example:
        kgradcam train-refiner runs/train --boxes 50 --out refiner.json
    """
    from kgradcam import progress
    from kgradcam.refine import add_network, collect, fit
    from kgradcam.refine.policy import EPOCHS
    from kgradcam.refine.training import NETWORK_RUNGS, POLICIES
    from kgradcam.runs.run import Run

    opened = Run(run)
    require_absent(out, force, run / "run.json", run / "ground_truth.json", suffixes=(".json",))
    with progress.bar("candidates", opened.info.counts.heatmaps, "heatmaps", quiet) as advance:
        examples = collect(opened, boxes, seed, classes or (), advance)
    network = None
    if rung in NETWORK_RUNGS:
        images = len({each.image_id for each in examples})
        with progress.bar("feature maps", images, "images", quiet) as advance:
            examples, network = add_network(opened, examples, advance)
    if rung in POLICIES:
        with progress.bar("episodes", EPOCHS, "epochs", quiet) as advance:
            refiner = fit(examples, rung, network, seed, advance)
    else:
        with progress.step("fitting", quiet):
            refiner = fit(examples, rung, network)
    refiner.save(out)
    note(f"{refiner.objects} boxes on {len(refiner.images)} images.", quiet)
    if refiner.score is None and refiner.offset is None:
        note("Cross-validation found no sure gain: boxes stay as they are. Annotate more.", quiet)
    if as_json:
        print_json({"refiner": str(out), "boxes": refiner.objects, "images": len(refiner.images)})
    else:
        typer.echo(out)
