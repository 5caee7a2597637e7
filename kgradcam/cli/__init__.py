"""The `kgradcam` command: options in, one call, results out.

Data go to stdout, all else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
TensorFlow takes seconds to import, so each command imports what it needs when it runs.
"""

import os
import signal
import sys
import threading
from typing import Annotated, Any, NoReturn

import typer

from kgradcam import __version__
from kgradcam.cli import explaining, localizing, measuring, preparing, training
from kgradcam.cli.output import note
from kgradcam.errors import UsageError, UserError

app = typer.Typer(
    help="Grad-CAM for every Keras 3 model: explain, localize, measure.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for _command in (
    localizing.detect,
    measuring.evaluate,
    measuring.tune,
    measuring.compare,
    localizing.visualize,
    localizing.report,
    explaining.explain,
    training.train,
    preparing.demo,
    preparing.prepare,
    explaining.layers,
    preparing.env,
):
    app.command()(_command)


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


def _fail(message: str, code: int) -> NoReturn:
    note(f"kgradcam: {message}")
    sys.exit(code)


def _interrupt_later(unraisable: Any) -> None:
    """What Ctrl-C raises in a destructor is lost: it is raised again, when that has ended."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()


def main() -> None:
    """Runs the command line; what a user can cause becomes one line and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: in order
    sys.unraisablehook = _interrupt_later
    try:
        app()
    except UsageError as error:
        _fail(str(error), 2)
    except UserError as error:
        _fail(str(error), 1)
    except OSError as error:
        told = f"{error.filename}: {error.strerror}." if error.filename else str(error)
        _fail(told, 1)
    except SystemExit as exit_:
        if exit_.code == 130:
            typer.echo("kgradcam: interrupted; nothing half-written is left behind.", err=True)
        raise
