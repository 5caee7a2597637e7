"""`kgradcam faithfulness`: measures how faithful the heatmaps of a run are to its model."""

from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.groups import ResultOptions
from kgradcam.cli.output import note
from kgradcam.cli.startup import import_tensorflow


def faithfulness(
    run: options.RunFolder,
    *,
    limit: Annotated[
        int | None, typer.Option(help="Measure at most N images, drawn at random.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of --limit.")] = 0,
    imports: options.Imports = None,
    trust_model: options.TrustModel = False,
    dataset: options.MovedDataset = None,
    data_dir: options.DataDir = None,
    max_pixels: options.MaxPixels = None,
    results: ResultOptions,
    quiet: options.Quiet = False,
) -> None:
    """Measure how faithful heatmaps are to the model.

    Deletion, insertion, occlusion, and more.

    Runs the model again, about 70 times for each heatmap.

    Example:
        kgradcam faithfulness runs/cat --limit 20
    """
    import_tensorflow(quiet)
    from kgradcam.evaluation.explanations import faithfulness_of_run
    from kgradcam.metrics.faithfulness import MEASURES
    from kgradcam.models.own_layers import import_modules
    from kgradcam.runs.run import Run

    import_modules(imports or ())
    result = faithfulness_of_run(
        Run(run),
        limit=limit,
        seed=seed,
        data_dir=data_dir,
        dataset=dataset,
        trusted=trust_model,
        quiet=quiet,
    )
    for name, meaning in MEASURES.items():
        note(f"{name}: {meaning}", quiet)
    results.print(result, quiet)
