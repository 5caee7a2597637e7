"""Starts the command line: TensorFlow's import, signals, errors and exit codes."""

import gc
import io
import logging
import os
import signal
import sys
import threading
import warnings
from typing import Any, NoReturn

import typer

from kgradcam.cli.output import note
from kgradcam.cli.parsing import expand_home
from kgradcam.cli.versions import check_processor, check_versions
from kgradcam.errors import DataWarning, UsageError, UserError
from kgradcam.storage import StorageError


def import_tensorflow(quiet: bool = False) -> None:
    """Imports TensorFlow without its messages and without garbage collection.

    Its import messages ignore the log level (tensorflow issue 100442), so stderr is redirected
    during the import. Exceptions still propagate. The import creates about a million objects that
    live until the exit: scanning them repeatedly would take a third of the start-up time.

    Args:
        quiet: Shows no line on a terminal meanwhile.
    """
    if "tensorflow" in sys.modules:
        return
    check_versions()
    check_processor()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    if shown := sys.stderr.isatty() and not quiet:
        print("loading TensorFlow ...", end="", file=sys.stderr)
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    gc.disable()
    try:
        _import_with_backend()
    finally:
        gc.enable()
        os.dup2(stderr, 2)
        os.close(stderr)
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    gc.freeze()


def _import_with_backend() -> None:
    try:
        import tensorflow  # noqa: F401 - it imports Keras, and ignores an ImportError of Keras
    except ValueError as error:
        raise _wrong_backend(str(error)) from error
    except ImportError as error:
        raise UserError(
            f"TensorFlow cannot be imported: {error}. pip install --force-reinstall tensorflow"
        ) from error
    try:
        import keras
    except ImportError as error:
        raise _wrong_backend(str(error)) from error
    if keras.backend.backend() != "tensorflow":
        raise _wrong_backend(keras.backend.backend())


def _wrong_backend(received: str) -> UserError:
    return UserError(
        f"kgradcam needs the backend tensorflow of Keras. Received: {received}. Set the "
        "environment variable KERAS_BACKEND=tensorflow, which overrides keras.json."
    )


def run(app: typer.Typer) -> None:
    """Runs the command line; a user's mistake becomes one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops in order, like Ctrl-C
    sys.unraisablehook = _interrupt_later
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A console in cp1252 or ASCII lacks some letters of class and file names.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    try:
        try:
            app([expand_home(argument) for argument in sys.argv[1:]], prog_name="kgradcam")
        finally:
            sys.stdout.flush()  # a closed pipe or a full disk is an error of the command
    except UsageError as error:
        _fail(str(error), 2)
    except (UserError, StorageError) as error:
        _fail(str(error), 1)
    except BrokenPipeError:  # as `| head` ends a command
        _discard_stdout()
        sys.exit(1)
    except OSError as error:
        _discard_stdout()
        _fail(f"{error.filename}: {error.strerror}." if error.filename else str(error), 1)
    except MemoryError as error:
        _fail(
            f"The memory is exhausted: {error or 'no details'}. Use smaller images or options.", 1
        )
    except SystemExit as exit_:
        if exit_.code == 130:
            typer.echo("kgradcam: interrupted; no partial file is left behind.", err=True)
        raise


def _open_closed_streams() -> None:
    """Opens streams that the shell has closed (`>&-`), so that no file takes their descriptors."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


def _discard_stdout() -> None:
    """Discards unwritten output, which Python would try to write again at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


_show_with_source = warnings.showwarning


def _show_warning(message: Any, category: Any, *source: Any, **options: Any) -> None:
    """Shows a warning about the user's data as one line, without the place in the source."""
    if issubclass(category, DataWarning):
        note(f"Warning: {message}")
    else:
        _show_with_source(message, category, *source, **options)


def _fail(message: str, code: int) -> NoReturn:
    note(f"kgradcam: {message}")
    sys.exit(code)


def _interrupt_later(unraisable: Any) -> None:
    """Raises KeyboardInterrupt again if Ctrl-C hit a destructor, where Python ignores it."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
