"""Progress on stderr: a bar with rate and time left, or plain lines without a terminal."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Advance = Callable[[int], None]

_SECONDS_BETWEEN_LINES = 10.0
_STDOUT = threading.RLock()


@contextmanager
def redirect_stdout(target: TextIO) -> Iterator[None]:
    """Sends the output of a library to another stream, because stdout is for results.

    `sys.stdout` belongs to the whole process, so threads take turns. Otherwise the last of two to
    end would restore the stream of the other one.

    Args:
        target: The stream that replaces `sys.stdout` while the `with` block runs.
    """
    with _STDOUT, contextlib.redirect_stdout(target):
        yield


def ignore(count: int) -> None:
    """An `Advance` that shows nothing."""


@contextmanager
def step(description: str, quiet: bool = False) -> Iterator[None]:
    """Shows a spinner while the `with` block runs; nothing in a log or a pipe.

    Args:
        description: The task, as `"loading resnet50"`.
        quiet: Shows nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{description} ..."):
        yield


@contextmanager
def bar(
    description: str, total: int, unit: str, quiet: bool = False, brief: bool = False
) -> Iterator[Advance]:
    """Shows a progress bar while the `with` block runs; in a log or a pipe, a line every 10 s.

    Args:
        description: The task, as `"heatmaps"`.
        total: The number of units of work.
        unit: The name of a unit, as `"images"`.
        quiet: Shows nothing.
        brief: Removes the bar at the end, and prints no line for work of less than 10 s.

    Yields:
        A function to call with the number of units just done.
    """
    if quiet:
        yield ignore
        return
    if not sys.stderr.isatty():
        yield from _lines(description, total, unit, brief)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "  {task.fields[rate]}"),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=brief,
    )
    with progress:
        task = progress.add_task(description, total=total, rate="")

        def advance(count: int) -> None:
            speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
            progress.update(task, advance=count, rate=f"{speed:.1f}/s" if speed else "")

        yield advance
        if not progress.tasks[0].completed:
            # Without work, neither an empty bar nor an empty line stays on the screen.
            progress.update(task, visible=False)
            progress.live.transient = True


def _lines(description: str, total: int, unit: str, brief: bool) -> Iterator[Advance]:
    start = printed = time.monotonic()
    done = 0

    def print_line() -> None:
        rate = done / max(time.monotonic() - start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        print(f"{description}: {done}/{total} {unit}, {rate:.1f}/s{left}", file=sys.stderr)

    def advance(count: int) -> None:
        nonlocal done, printed
        done += count
        if done < total and time.monotonic() - printed > _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            print_line()

    yield advance
    if done and not (brief and printed == start):
        print_line()
