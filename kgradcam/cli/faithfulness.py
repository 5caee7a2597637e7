"""`kgradcam faithfulness`: measures how faithful the heatmaps of a run are to its model."""

from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.output import note, print_result, require_absent
from kgradcam.cli.parsing import output_form
from kgradcam.cli.startup import import_tensorflow


def faithfulness(
    run: options.RunFolder,
    limit: Annotated[
        int | None, typer.Option(help="Measure at most N images, drawn at random.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of --limit.")] = 0,
    imports: options.Imports = None,
    trust_model: options.TrustModel = False,
    dataset: options.MovedDataset = None,
    data_dir: options.DataDir = None,
    max_pixels: options.MaxPixels = None,
    out: options.ResultFolder = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
    as_markdown: options.AsMarkdown = False,
    as_latex: options.AsLatex = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how faithful heatmaps are to the model.

    Deletion, insertion, occlusion, and more.

    Runs the model again, about 70 times for each heatmap.

    Example:
        kgradcam faithfulness runs/cat --limit 20
    """
    form = output_form(json=as_json, csv=as_csv, markdown=as_markdown, latex=as_latex)
    require_absent(out and out / "evaluation.json", force)
    import_tensorflow()
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
    print_result(result, form, out)
