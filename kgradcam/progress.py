"""Progress of long work, on stderr: a bar with rate and time left, or nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


def ignore(count: int) -> None:
    """Reports progress to nobody."""


@contextmanager
def bar(description: str, total: int, unit: str, quiet: bool = False) -> Iterator[Advance]:
    """Shows a progress bar while the `with` block runs.

    Args:
        description: What is being done.
        total: How many units there are.
        unit: What is counted, as `"images"`.
        quiet: Shows nothing.

    Yields:
        A function to call with the number of units just done.
    """
    if quiet:
        yield ignore
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
