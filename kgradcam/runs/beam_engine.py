"""Apache Beam as the engine of a planned run: its parts on any runner, in any order.

Beam may process an element again, and several times at once. That is harmless: a part is passed
over if it is there, and is the same whoever writes it.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from kgradcam.errors import UsageError, UserError
from kgradcam.runs.plan import read_plan
from kgradcam.storage import place

_NAMESPACE = "kgradcam"
_COUNTERS = ("parts_computed", "parts_found", "images")
_ADVICE = (
    "Name a runner of Beam after --, such as `-- --runner=FnApiRunner` on this machine, or "
    "FlinkRunner, SparkRunner or DataflowRunner."
)


class ComputeParts(beam.DoFn):  # type: ignore[misc]
    """Computes the parts of a plan, given by number; yields those that are there by then.

    Metrics in the namespace `kgradcam`: the counters `parts_computed`, `parts_found` and `images`,
    and the distribution `part_milliseconds`.

    Args:
        run: The run folder to be, as a path or URL that every worker can read and write.
        options: See `ShardWorker`.
    """

    def __init__(self, run: str, **options: Any) -> None:
        self._run, self._options = run, options
        self._shared = Shared()

    def setup(self) -> None:
        """Loads the model, once for all threads of a process."""
        self._worker = self._shared.acquire(lambda: _Worker(self._run, self._options))

    def process(self, number: int) -> Iterator[int]:
        """Computes a part."""
        start = time.monotonic()
        images = self._worker.compute(number)
        if images:
            Metrics.counter(_NAMESPACE, "parts_computed").inc()
            Metrics.counter(_NAMESPACE, "images").inc(images)
            seconds = time.monotonic() - start
            Metrics.distribution(_NAMESPACE, "part_milliseconds").update(round(1000 * seconds))
        else:
            Metrics.counter(_NAMESPACE, "parts_found").inc()
        yield number


class _Worker:
    """The model of a process. Its threads take turns, since TensorFlow uses all cores itself."""

    def __init__(self, run: str, options: dict[str, Any]) -> None:
        from kgradcam.runs.shards import ShardWorker

        self._worker = ShardWorker(read_plan(place(run)), **options)
        self._turn = threading.Lock()

    def compute(self, number: int) -> int:
        """Returns the number of images, or 0 if the part was there."""
        plan = self._worker.plan
        with self._turn:
            computed = self._worker.run_part(number)
        return plan.starts[number + 1] - plan.starts[number] if computed else 0


def run_beam(folder: Path, arguments: Sequence[str], **options: Any) -> dict[str, int]:
    """Computes the parts of a plan that are not there yet, by a pipeline of Beam.

    The pipeline is `Create(parts) | Reshuffle | ParDo(ComputeParts)`. Run it again after a failure.

    Args:
        folder: The run folder to be. For workers on other machines: a URL, or a path that all of
            them have.
        arguments: Options of Beam, with a `--runner`.
        options: See `ShardWorker`.

    Returns:
        The counters of `ComputeParts`, 0 where a runner has none, and `images_per_hour`.

    Raises:
        UsageError: The options name no runner, or Beam refuses them.
        UserError: There is no plan, or the pipeline failed.
    """
    if not any(each.partition("=")[0] == "--runner" for each in arguments):
        raise UsageError(f"Beam's default runner downloads a program. {_ADVICE}")
    plan = read_plan(folder)
    missing = sorted(set(range(plan.parts)) - plan.done())
    start = time.monotonic()
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(list(arguments)))
    except (SystemExit, ValueError) as error:  # argparse has printed its own message
        raise UsageError(f"Beam refuses its options: {error}. {_ADVICE}") from error
    (
        pipeline
        | "Parts" >> beam.Create(missing)
        | "Spread" >> beam.Reshuffle()
        | "Compute" >> beam.ParDo(ComputeParts(str(folder), **options))
    )
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:  # of the runner, or of a worker as text
        logging.getLogger("apache_beam").debug("The pipeline failed.", exc_info=True)
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        raise UserError(
            f"Beam's pipeline failed: {reason[:500] or type(error).__name__}. Finished parts are "
            "kept; the same command continues."
        ) from error
    counters = dict.fromkeys(_COUNTERS, 0)
    with contextlib.suppress(NotImplementedError):  # Beam's runner for Dask has no metrics
        found = result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))
        for each in found["counters"]:
            counters[each.key.metric.name] += each.committed or each.attempted or 0
    hours = max(time.monotonic() - start, 1e-9) / 3600
    return counters | {"images_per_hour": round(counters["images"] / hours)}
