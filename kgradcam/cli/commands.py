"""The commands in the order of `kgradcam --help`."""

from typing import Annotated

import typer

from kgradcam import __version__
from kgradcam.cli import (
    check,
    coco,
    compare,
    demo,
    detect,
    env,
    evaluate,
    explain,
    explore,
    export,
    export_model,
    faithfulness,
    layers,
    merge,
    prepare,
    refine,
    report,
    scores,
    train,
    train_refiner,
    tune,
    visualize,
    wsol,
)
from kgradcam.cli.groups import flatten
from kgradcam.cli.help import Command

app = typer.Typer(
    help="Grad-CAM for every Keras 3 model: explain, localize, measure.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for _command in (
    explain.explain,
    explore.explore,
    layers.layers,
    detect.detect,
    merge.merge,
    visualize.visualize,
    evaluate.evaluate,
    wsol.wsol,
    coco.coco,
    faithfulness.faithfulness,
    check.check,
    tune.tune,
    compare.compare,
    report.report,
    export.export,
    scores.scores,
    train.train,
    train_refiner.train_refiner,
    refine.refine,
    export_model.export_model,
    demo.demo,
    prepare.prepare,
    env.env,
):
    app.command(cls=Command)(flatten(_command))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kgradcam {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass
