"""Worker processes of `detect --workers`, on one machine."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgradcam import progress
from kgradcam.cli.output import note
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from kgradcam.runs.run import Run

_SECONDS = 0.5  # between two checks for finished parts


def hide_gpus() -> list[str]:
    """Leaves the GPUs to the workers; returns their names for `CUDA_VISIBLE_DEVICES`."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices([], "GPU")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        [each.strip() for each in given.split(",")]
        if given and found
        else [str(i) for i in range(len(found))]
    )


def run_in_workers(
    folder: Path, workers: int, gpus: Sequence[str], quiet: bool, **options: Any
) -> "Run":
    """Computes a planned run in processes of this machine, and merges it.

    A worker may end early, as long as others compute its parts.

    Args:
        folder: The run folder to be.
        workers: The number of processes.
        gpus: The GPUs, which they share.
        quiet: Shows no progress on stderr.
        options: See `ShardWorker`.

    Raises:
        UserError: All workers ended before the parts were complete.
    """
    from kgradcam.runs.merging import merge
    from kgradcam.runs.plan import read_plan

    plan = read_plan(folder)
    done: set[int] = set()
    processes = _processes(folder, workers, gpus, options)
    try:
        for process in processes:
            process.start()
        running: dict[Any, Any] = {each.sentinel: each for each in processes}
        with progress.bar("heatmaps", plan.images, "images", quiet) as advance:
            while len(done) < plan.parts and running:
                for sentinel in connection.wait([*running], _SECONDS):
                    if code := running.pop(sentinel).exitcode:
                        note(f"A worker ended with code {code}.")
                new = plan.done() - done
                done |= new
                advance(sum(plan.starts[i + 1] - plan.starts[i] for i in new))
    finally:
        for process in processes:
            if process.pid:  # else it was not started
                process.terminate()
                process.join()
    if len(done) < plan.parts:
        raise UserError(f"All workers ended, and {plan.parts - len(done)} parts are missing.")
    return merge(folder, report=lambda line: note(line, quiet))


def _processes(
    folder: Path, workers: int, gpus: Sequence[str], options: Any
) -> "list[SpawnProcess]":
    spawn, processes = multiprocessing.get_context("spawn"), []
    for i in range(workers):
        environment = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
        if len(gpus) < workers:
            environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # else the first one takes it all
        arguments = (folder, i, workers, environment, options)
        processes.append(spawn.Process(target=_work, args=arguments, daemon=True))
    return processes


def _work(
    folder: Path, number: int, workers: int, environment: Mapping[str, str], options: Any
) -> None:
    """Computes the parts of a worker, and then those that the others have not finished."""
    os.environ |= environment
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this
    try:
        import_tensorflow()
        from kgradcam.runs.plan import read_plan
        from kgradcam.runs.shards import ShardWorker

        worker = ShardWorker(read_plan(folder), **options)
        worker.run_parts(_own_first(worker.plan.parts, number, workers))
    except (UserError, OSError) as error:
        note(f"kgradcam: {error}")
        sys.exit(1)


def _own_first(parts: int, number: int, workers: int) -> Iterator[int]:
    parent = multiprocessing.parent_process()
    others = (i for i in reversed(range(parts)) if i % workers != number)
    for part in (*range(number, parts, workers), *others):
        if parent is None or not parent.is_alive():
            return
        yield part
