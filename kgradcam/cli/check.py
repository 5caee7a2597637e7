"""`kgradcam check`: fails where a model does not look at its objects."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import options
from kgradcam.cli.groups import ResultForm
from kgradcam.cli.output import note, require_absent
from kgradcam.errors import UsageError, did_you_mean


def check(
    run: options.RunFolder,
    *,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            help="Fail if energy or pointing is below a value; repeat for both.",
            metavar="MEASURE=VALUE",
            show_default=False,
        ),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            help="Fail if border or fixed is above a value; repeat for both.",
            metavar="MEASURE=VALUE",
            show_default=False,
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Hold each class to the limits, not their mean.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Fail if a measure is worse than in this run.", metavar="RUN", show_default=False
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How much worse than in --baseline.", min=0, max=1)
    ] = 0.02,
    junit: Annotated[
        Path | None,
        typer.Option(help="JUnit file to write, for CI.", metavar="FILE.xml", show_default=False),
    ] = None,
    max_pixels: options.MaxPixels = None,
    form: ResultForm,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Fail if a model does not look at its objects.

    Exit code 1 where a limit is not kept. Names classes that seem to use a shortcut.

    Example:
        kgradcam check runs/cat --fail-under energy=0.6 --fail-under pointing=0.8
    """
    from kgradcam.evaluation.heat_check import (
        HIGH_IS_GOOD,
        LOW_IS_GOOD,
        check_run,
        hold_to_limits,
        to_junit,
    )
    from kgradcam.files import write_atomically
    from kgradcam.runs.run import Run

    limits = _limits("--fail-under", fail_under or (), HIGH_IS_GOOD)
    limits |= _limits("--fail-over", fail_over or (), LOW_IS_GOOD)
    require_absent(junit, force, run, *filter(None, [baseline]), suffixes=(".xml",))
    found = check_run(Run(run), quiet)
    before = None if baseline is None else check_run(Run(baseline), quiet)
    verdicts = hold_to_limits(found, limits, per_class, before, tolerance)
    for name, meaning in {**HIGH_IS_GOOD, **LOW_IS_GOOD}.items():
        note(f"{name}: {meaning}", quiet)
    form.print(found.result)
    for sentence in found.shortcuts().values():
        note(sentence, quiet)
    if junit is not None:
        write_atomically(junit, to_junit(verdicts, str(run)))
    failed = [verdict for verdict in verdicts if verdict.failure is not None]
    for verdict in failed:
        note(f"failed: {verdict.class_name}: {verdict.failure}")
    if verdicts:
        note(f"{len(verdicts) - len(failed)} of {len(verdicts)} checks passed.", quiet)
    if failed:
        raise typer.Exit(1)


def _limits(option: str, texts: Sequence[str], known: Collection[str]) -> dict[str, float]:
    """Parses limits, as `energy=0.6`."""
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise UsageError(
                f"{option} must be {' or '.join(known)}, with =VALUE. Received: {text!r:.80}."
                f"{did_you_mean(name, known)}"
            )
        try:
            limits[name] = float(value)
        except ValueError:
            limits[name] = -1.0
        if not 0 <= limits[name] <= 1:
            raise UsageError(f"{option} {name} must be in [0, 1]. Received: {text!r:.80}.")
    return limits
