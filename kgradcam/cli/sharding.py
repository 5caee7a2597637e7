"""The options of `detect` for many processes: `--plan`, `--shard`, `--workers` and `--runner`."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kgradcam.cli.output import note, print_json
from kgradcam.cli.workers import run_in_workers
from kgradcam.errors import UsageError, UserError

if TYPE_CHECKING:
    from kgradcam.runs.plan import Plan
    from kgradcam.runs.run import Run


@dataclass(frozen=True)
class Sharding:
    """The options of a run by many processes."""

    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only plan the run, for --shard on any number of machines."),
    ] = False
    shards: Annotated[
        int | None,
        typer.Option(
            help="With --plan: the number of shards.", min=1, metavar="N", show_default="1"
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            help="With --resume: compute shard K of N of a planned run, then `kgradcam merge RUN`. "
            "auto is the task of Slurm, Kubernetes or AWS Batch.",
            metavar="K/N|auto",
            show_default=False,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            help="Compute in N processes, with a GPU each where there are several.",
            min=1,
            metavar="N",
            show_default=False,
        ),
    ] = None
    runner: Annotated[
        str | None,
        typer.Option(
            help="Compute by Apache Beam, whose options follow after --, such as -- "
            "--runner=FlinkRunner.",
            metavar="beam",
            show_default=False,
        ),
    ] = None
    beam_options: Annotated[
        list[str] | None,
        typer.Argument(
            help="With --runner beam: options of Beam, after --.",
            metavar="-- BEAM OPTION",
            show_default=False,
        ),
    ] = None

    def require_fitting(self, resume: Path | None, refiner: Path | None) -> None:
        """Checks the options that belong together.

        Raises:
            UsageError: They contradict one another.
        """
        if self.shards and not self.plan:
            raise UsageError("--shards N needs --plan, which writes the plan of the run.")
        if self.plan and (resume or self.shard or self.workers):
            raise UsageError("--plan needs --out RUN. Then compute with --resume RUN --shard K/N.")
        if self.shard and (not resume or self.workers):
            raise UsageError("--shard K/N needs --resume RUN, of a run that --plan has planned.")
        if self.runner not in (None, "beam"):
            raise UsageError(
                f"--runner must be beam. Received: {self.runner!r}. Beam's go after --."
            )
        if self.runner and (self.plan or self.shard or self.workers):
            raise UsageError("--runner beam cannot be combined with --plan, --shard or --workers.")
        if refiner and (self.plan or self.shard or self.workers or self.runner):
            raise UsageError(
                "--refiner cannot be combined with --plan, --shard, --workers or --runner. Refine "
                f"the finished run: kgradcam refine RUN --refiner {refiner}."
            )
        if self.beam_options and not self.runner:
            raise UsageError(
                f"detect takes options only. Received: {self.beam_options[0]!r}. Beam's need "
                "--runner beam."
            )

    def run(self, folder: Path, gpus: Sequence[str], quiet: bool, **options: Any) -> "Run":
        """Computes a planned run by `--runner` or `--workers`, and merges it."""
        if self.runner:
            return run_on_beam(folder, self.beam_options or (), quiet, **options)
        return run_in_workers(folder, self.workers or 1, gpus, quiet, **options)


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
    # The variable of the task, and those of the count and of the first task, if there are any.
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
