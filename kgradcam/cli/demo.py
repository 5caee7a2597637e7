"""`kgradcam demo`: detects, evaluates and draws, without a download."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam.cli import options
from kgradcam.cli.output import print_result_table, require_absent
from kgradcam.cli.startup import import_tensorflow


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.", metavar="DIR")] = Path("demo"),
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Detect, evaluate and draw; it needs no download.

    Example:
        kgradcam demo --out demo
    """
    picture = out / "ten.png"
    require_absent(picture, force)
    import_tensorflow(quiet)
    from kgradcam.data.demo_scenes import CLASS_NAME
    from kgradcam.data.names import DEMO
    from kgradcam.evaluation.grid import evaluate_run
    from kgradcam.metrics.protocol import find_protocol
    from kgradcam.models.network import EFFICIENTNET_LITE0
    from kgradcam.pictures.figures import save
    from kgradcam.pictures.run_gallery import visualize_run
    from kgradcam.runs.configuration import Configuration
    from kgradcam.runs.detection import detect
    from kgradcam.runs.partial_run import is_interrupted
    from kgradcam.runs.run import Run

    out.mkdir(parents=True, exist_ok=True)
    configuration = Configuration(dataset=DEMO, classes=(CLASS_NAME,), model=EFFICIENTNET_LITE0)
    folder = out / "run"
    # A demo that was killed resumes its run.
    if not force and (folder / "run.json").is_file() and _is_ours(Run(folder), configuration):
        run = Run(folder)
    else:
        resume = not force and is_interrupted(folder)
        run = detect(
            configuration, folder, data_dir=data_dir, force=force, resume=resume, quiet=quiet
        )
    evaluation = evaluate_run(run, None, (0.3, 0.4, 0.5), find_protocol("voc2010"), quiet=quiet)
    save(visualize_run(run, data_dir=data_dir), picture)
    if as_json:
        typer.echo(evaluation.to_json().rstrip())
        return
    print_result_table(evaluation)
    typer.echo(picture)


def _is_ours(run: Any, configuration: Any) -> bool:
    made_by = run.info.configuration
    return bool(replace(made_by, precision=configuration.precision) == configuration)
