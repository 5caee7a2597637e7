"""Many processes for one run: `detect --plan`, `--shard` and `--workers`."""

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kgradcam import progress
from kgradcam.cli.output import note, print_json
from kgradcam.cli.startup import import_tensorflow
from kgradcam.errors import UsageError, UserError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from kgradcam.runs.plan import Plan
    from kgradcam.runs.run import Run

Shards = Annotated[
    int | None,
    typer.Option(help="With --plan: the number of shards.", min=1, metavar="N", show_default="1"),
]
OnlyPlan = Annotated[
    bool, typer.Option("--plan", help="Only plan the run, for --shard on any number of machines.")
]
Shard = Annotated[
    str | None,
    typer.Option(
        help="With --resume: compute shard K of N of a planned run, then `kgradcam merge RUN`. "
        "auto is the task of Slurm, Kubernetes or AWS Batch.",
        metavar="K/N|auto",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Compute in N processes, with a GPU each where there are several.",
        min=1,
        metavar="N",
        show_default=False,
    ),
]

Runner = Annotated[
    str | None,
    typer.Option(
        help="Compute by Apache Beam, whose options follow after --, such as -- "
        "--runner=FlinkRunner.",
        metavar="beam",
        show_default=False,
    ),
]
BeamOptions = Annotated[
    list[str] | None,
    typer.Argument(
        help="With --runner beam: options of Beam, after --.",
        metavar="-- BEAM OPTION",
        show_default=False,
    ),
]

_SECONDS = 0.5  # between two checks for finished parts


def require_fitting(
    resume: Path | None,
    shards: int | None,
    plan: bool,
    shard: str | None,
    workers: int | None,
    runner: str | None,
    beam_options: Sequence[str] | None,
    refiner: Path | None,
) -> None:
    """Checks the options that belong together.

    Raises:
        UsageError: They contradict one another.
    """
    if shards and not plan:
        raise UsageError("--shards N needs --plan, which writes the plan of the run.")
    if plan and (resume or shard or workers):
        raise UsageError("--plan goes with --out RUN. Then compute with --resume RUN --shard K/N.")
    if shard and (not resume or workers):
        raise UsageError("--shard K/N goes with --resume RUN, of a run that --plan has planned.")
    if runner not in (None, "beam"):
        raise UsageError(f"--runner must be beam. Received: {runner!r}. Beam's go after --.")
    if runner and (plan or shard or workers):
        raise UsageError("--runner beam does not go with --plan, --shard or --workers.")
    if refiner and (plan or shard or workers or runner):
        raise UsageError(
            "--refiner does not go with --plan, --shard, --workers or --runner. Refine the "
            f"finished run: kgradcam refine RUN --refiner {refiner}."
        )
    if beam_options and not runner:
        raise UsageError(
            f"detect takes options only. Received: {beam_options[0]!r}. Beam's need --runner beam."
        )


def require_no_others(others: Sequence[str]) -> None:
    """Checks that no option is given that the plan holds.

    Raises:
        UsageError: One is given.
    """
    if others:
        name = others[0].replace("_", "-")
        raise UsageError(f"The plan has the options of the run. Leave out --{name}.")


def only_plan(configuration: Any, folder: Path, shards: int, quiet: bool, **options: Any) -> "Plan":
    """Plans a run; see `make_plan`."""
    from kgradcam.runs.planning import make_plan

    return make_plan(
        configuration,
        folder,
        shards,
        quiet=quiet,
        report=lambda line: note(line, quiet),
        **options,
    )


def write_plan(
    configuration: Any, folder: Path, shards: int, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Plans a run, and prints the commands that compute it."""
    plan = only_plan(configuration, folder, shards, quiet=quiet, **options)
    note(f"{plan.images} images in {plan.parts} parts of {shards} shards.", quiet)
    if shards > plan.parts:
        note(f"{shards - plan.parts} shards have no part: --shards {plan.parts} is enough.", quiet)
    note(
        f"Compute each with `kgradcam detect --resume {folder} --shard K/{shards}`, K from 1; then "
        f"`kgradcam merge {folder}`.",
        quiet,
    )
    if as_json:
        counts = {"images": plan.images, "parts": plan.parts, "shards": shards}
        print_json({"run": str(folder), **counts, "plan": plan.digest})
    else:
        typer.echo(folder)


def compute_shard(folder: Path, shard: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Computes a shard of a planned run; a no-op if the run is merged already."""
    from kgradcam.runs.plan import is_merged, read_plan
    from kgradcam.runs.shards import run_shard

    if is_merged(folder):
        note(f"{folder} is merged already.", quiet)
        parts = 0
    else:
        plan = read_plan(folder)
        index = shard_index(shard, plan.shards, os.environ)
        parts = run_shard(plan, index, quiet=quiet, **options)
        there = len(plan.shard(index))
        note(
            f"Shard {index + 1}/{plan.shards}: {parts} parts computed, {there - parts} were there.",
            quiet,
        )
    if as_json:
        print_json({"run": str(folder), "parts": parts})


def shard_index(text: str, shards: int, environment: Mapping[str, str]) -> int:
    """Returns the shard, counted from 0, of `K/N` or of the array task of a scheduler.

    Args:
        text: `K/N`, with K from 1 to N; or `auto`.
        shards: The number of shards of the plan.
        environment: The variables of the environment.

    Raises:
        UsageError: It is neither, N is not the number of shards, or no scheduler set its variables.
    """
    if text != "auto":
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not found:
            raise UsageError(f"--shard must be K/N, such as 1/{shards}, or auto. Received: {text}.")
        number, given = map(int, found.groups())
        if given != shards or not 1 <= number <= shards:
            raise UsageError(f"--shard must be 1/{shards} to {shards}/{shards}. Received: {text}.")
        return number - 1
    names = {
        "SLURM_ARRAY_TASK_ID": ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
        "JOB_COMPLETION_INDEX": ("", ""),
        "AWS_BATCH_JOB_ARRAY_INDEX": ("AWS_BATCH_JOB_ARRAY_SIZE", ""),
    }
    for name, (count_name, first_name) in names.items():
        if name not in environment:
            continue
        index = _number(environment, name) - _number(environment, first_name, 0)
        count = _number(environment, count_name, shards)
        if count != shards or not 0 <= index < shards:
            raise UsageError(
                f"The array has {count} tasks, and this is {name}={environment[name]}; the plan "
                f"has {shards} shards. Give the shard itself: --shard K/{shards}, K from 1."
            )
        return index
    raise UsageError(f"--shard auto needs one of {', '.join(names)}. Give --shard K/{shards}.")


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise UsageError(f"{name} must be a number. Received: {text!r}.")
    return int(text)


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


def run_on_beam(folder: Path, arguments: Sequence[str], quiet: bool, **options: Any) -> "Run":
    """Computes a planned run by a pipeline of Apache Beam, and merges it.

    Raises:
        UserError: Beam is not installed, or see `run_beam`.
    """
    from kgradcam.runs.merging import merge

    try:
        from kgradcam.runs.beam_engine import run_beam
    except ImportError as error:
        raise UserError(
            f"--runner beam needs Apache Beam: pip install 'kgradcam[beam]' ({error})"
        ) from None
    found = run_beam(folder, arguments, **options)
    note(
        f"Beam: {found['parts_computed']} parts, {found['images']} images, "
        f"{found['images_per_hour']} images an hour.",
        quiet,
    )
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
