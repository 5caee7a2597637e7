"""Progress of long work, on stderr: a bar with rate and time left; lines where no terminal is."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]

_SECONDS_BETWEEN_LINES = 10.0


def ignore(count: int) -> None:
    """Reports progress to nobody."""


@contextmanager
def bar(
    description: str, total: int, unit: str, quiet: bool = False, brief: bool = False
) -> Iterator[Advance]:
    """Shows a progress bar while the `with` block runs; a line now and then in a log or a pipe.

    Args:
        description: What is being done.
        total: How many units there are.
        unit: What is counted, as `"images"`.
        quiet: Shows nothing.
        brief: Leaves nothing behind, where it is done in a moment as a rule.

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
            progress.update(task, visible=False)  # there was nothing to do,
            progress.live.transient = True  # nor to leave an empty line for


def _lines(description: str, total: int, unit: str, brief: bool) -> Iterator[Advance]:
    start = told = time.monotonic()
    done = 0

    def tell() -> None:
        rate = done / max(time.monotonic() - start, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        print(f"{description}: {done}/{total} {unit}, {rate:.1f}/s{left}", file=sys.stderr)

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if done < total and time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            tell()

    yield advance
    if done and not (brief and told == start):
        tell()
