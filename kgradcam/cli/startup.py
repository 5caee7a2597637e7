"""Starts the command line: TensorFlow's import, signals, errors and exit codes."""

import gc
import logging
import os
import signal
import sys
import threading
from typing import Any, NoReturn

import typer

from kgradcam.cli.output import note
from kgradcam.errors import UsageError, UserError


def import_tensorflow() -> None:
    """Imports TensorFlow in silence, and without looking for garbage.

    What it says while it is imported heeds no setting (tensorflow issue 100442), so stderr looks
    away for that long; an exception comes through all the same. The million objects that it makes
    stay for good: to look through them again and again, and once more at the exit, takes a third of
    the time.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    gc.disable()
    try:
        import tensorflow  # noqa: F401
    finally:
        gc.enable()
        os.dup2(stderr, 2)
        os.close(stderr)
    gc.freeze()


def run(app: typer.Typer) -> None:
    """Runs the command line; a user's mistake becomes one line on stderr and an exit code."""
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
