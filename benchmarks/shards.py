"""Simulates a planned run of 100 million pictures on 1,000 workers that fail, wait and are slow.

    python benchmarks/shards.py [--images 100000000] [--workers 1000] [--seed 0]

The cut of the plan, the parts of each shard and the parts that are missing are those of
`runs.plan.Plan`; finished parts are files in a folder, as workers leave them. Times are drawn:

* a worker computes RATE pictures a second, its machine some 15 % more or less; one machine in a
  hundred has a fifth of the speed;
* each job of the scheduler first starts for START seconds: TensorFlow, the model, the first trace;
* a machine fails after MEAN_HOURS on average, loses the part it computes, and RESTART seconds later
  another one takes the shard up, which passes over the parts that are there;
* once no shard is left, an idle worker takes the shard that has most parts left a second time.

`scheduler` has a job for each shard. `Beam` has a job for each worker, which keeps its model and
takes parts. The tail is the time from the first worker without work to the last part.
"""

import argparse
import heapq
import math
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from report import RESULTS, save

from kgradcam.runs.partial_run import partial_folder
from kgradcam.runs.plan import Plan
from kgradcam.runs.run_writer import PART

RATE, START, RESTART, MEAN_HOURS = 18.2, 15.0, 60.0, 12.0
SLOW, SLOWNESS = 0.01, 5.0
SHARDS = (1000, 4000, 20_000, 100_000)


def plan_of(folder: Path, images: int, shards: int) -> Plan:
    """A plan of pictures for one image size, whose parts end after `PART` pictures each."""
    starts = [*range(0, images, PART), images]
    none: Any = None  # the options affect neither the cut nor the files
    return Plan(folder, none, "0" * 16, shards, images, [], [], starts, True)


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        hours: From the start to the last part, or to the end that was given.
        tail: The part of it after the first worker ran out of work, in hours.
        computed: How often each part was computed to its end.
        busy: Hours of all machines, starts and lost work included.
        failures: Machines that failed.
    """

    hours: float
    tail: float
    computed: npt.NDArray[np.int64]
    busy: float
    failures: int


class Simulation:
    """A run. A worker is a place of the scheduler; when its machine fails, another one comes.

    Args:
        plan: The plan.
        workers: The number of workers.
        anew: Whether each shard is a job that starts anew; else a machine starts once.
        done: The parts that are there at the start.
        seed: The random seed.
    """

    def __init__(self, plan: Plan, workers: int, anew: bool, done: set[int], seed: int) -> None:
        self.plan, self.anew = plan, anew
        self.random = np.random.default_rng(seed)
        self.sizes = np.diff(plan.starts)
        self.done = np.zeros(plan.parts, bool)
        self.done[list(done)] = True
        self.computed = np.zeros(plan.parts, np.int64)
        self.queue = deque(shard for shard in range(plan.shards) if self._left(shard))
        self.takers = np.zeros(plan.shards, np.int64)
        self.work: dict[int, tuple[int, Iterator[int]]] = {}  # a worker's shard, and its next parts
        self.speed, self.until = np.zeros(workers), np.zeros(workers)
        self.failures, self.busy = 0, 0.0
        self.first_idle: float | None = None

    def run(self, hours: float = math.inf) -> Outcome:
        """Runs until every part is there, or all machines go down at once."""
        events: list[tuple[float, int, int]] = []  # end, worker, part; -1: it is ready for work
        for worker in range(len(self.speed)):
            events.append((self._new_machine(worker, 0.0), worker, -1))
        heapq.heapify(events)
        now, remaining = 0.0, int((~self.done).sum())
        while remaining and events[0][0] < hours * 3600:
            now, worker, part = heapq.heappop(events)
            if part >= 0:
                remaining -= not self.done[part]
                self.done[part] = True
                self.computed[part] += 1
            event = self._continue(worker, now)
            if event is not None:
                heapq.heappush(events, event)
        self.busy -= sum(end - now for end, _, part in events if part >= 0)
        idle = now if self.first_idle is None else self.first_idle
        return Outcome(
            now / 3600, (now - idle) / 3600, self.computed, self.busy / 3600, self.failures
        )

    def _continue(self, worker: int, now: float) -> tuple[float, int, int] | None:
        """Returns the end of what a worker does next."""
        start, part = 0.0, self._next_part(worker)
        while part is None:
            shard = self._take()
            if shard is None:
                self.first_idle = now if self.first_idle is None else self.first_idle
                return None
            self.takers[shard] += 1
            self.work[worker] = shard, iter(self.plan.shard(shard))
            start, part = START if self.anew else 0.0, self._next_part(worker)
        seconds = self.sizes[part] / (self.speed[worker] * self.random.lognormal(0, 0.05))
        end = now + start + seconds
        if end <= self.until[worker]:
            self.busy += end - now
            return end, worker, part
        self.failures += 1
        self.busy += self.until[worker] - now
        shard, _ = self.work.pop(worker)
        self.takers[shard] -= 1
        self.queue.appendleft(shard)
        return self._new_machine(worker, self.until[worker] + RESTART), worker, -1

    def _next_part(self, worker: int) -> int | None:
        if worker in self.work:
            shard, parts = self.work[worker]
            for part in parts:
                if not self.done[part]:
                    return part
            self.takers[shard] -= 1
            del self.work[worker]
        return None

    def _take(self) -> int | None:
        """The next shard, or that with most parts left of those that one worker has."""
        if self.queue:
            return self.queue.popleft()
        alone = {shard for shard, _ in self.work.values() if self.takers[shard] == 1}
        shard = max(alone, key=self._left, default=None)
        return shard if shard is not None and self._left(shard) > 1 else None

    def _left(self, shard: int) -> int:
        parts = self.plan.shard(shard)
        return len(parts) - int(np.count_nonzero(self.done[parts.start : parts.stop]))

    def _new_machine(self, worker: int, now: float) -> float:
        """Returns when the machine is ready for work."""
        slow = SLOWNESS if self.random.random() < SLOW else 1.0
        self.speed[worker] = RATE * self.random.lognormal(0, 0.15) / slow
        start = 0.0 if self.anew else START
        self.until[worker] = now + start + self.random.exponential(MEAN_HOURS * 3600)
        self.busy += start
        return now + start


def require_cut(plan: Plan) -> None:
    """Checks that each part is in one shard, and each picture in one part."""
    parts = np.concatenate([np.arange(*_ends(plan.shard(i))) for i in range(plan.shards)])
    assert (parts == np.arange(plan.parts)).all()
    assert plan.starts[0] == 0
    assert plan.starts[-1] == plan.images
    assert (np.diff(plan.starts) > 0).all()


def _ends(parts: range) -> tuple[int, int]:
    return parts.start, parts.stop


def with_outage(plan: Plan, workers: int, seed: int) -> list[str]:
    """All machines go down after a third of the time; only the files in the folder remain."""
    (partial_folder(plan.folder) / "parts").mkdir(parents=True)
    first = Simulation(plan, workers, True, set(), seed)
    hours = plan.images / (workers * RATE) / 3600 / 3
    before = first.run(hours)
    for part in np.flatnonzero(first.done).tolist():
        plan.part_file(part).touch()
    missing = set(range(plan.parts)) - plan.done()
    assert missing == set(np.flatnonzero(before.computed == 0).tolist())
    second = Simulation(plan, workers, True, plan.done(), seed + 1)
    after = second.run()
    assert (after.computed[list(plan.done())] == 0).all()  # what was there is not computed again
    for part in np.flatnonzero(after.computed).tolist():
        plan.part_file(part).touch()
    assert plan.done() == set(range(plan.parts))
    return [
        f"{plan.parts - len(missing):,}",
        f"{len(missing):,}",
        f"{before.hours + after.hours:.2f}",
        f"{len(set(range(plan.parts)) - plan.done())}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    images, workers, seed = options.images, options.workers, options.seed
    least = images / (workers * RATE) / 3600
    lines, measured = [], []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        parts = plan_of(Path(scratch) / "run", images, 1).parts
        for shards in (*(each for each in SHARDS if each < parts), parts):
            plan = plan_of(Path(scratch) / "run", images, shards)
            require_cut(plan)
            beam = shards == parts
            found = Simulation(plan, workers, not beam, set(), seed).run()
            assert (found.computed > 0).all()  # no part is lost; more than once is the same file
            again = int((found.computed - 1).sum())
            useful = images / RATE / 3600
            line = {
                "jobs": "Beam, a part each" if beam else f"{shards:,} shards",
                "pictures": images // shards,
                "hours": found.hours,
                "tail": found.tail,
                "failures": found.failures,
                "again": again / parts,
                "machine hours": found.busy,
            }
            measured.append(line)
            lines.append(
                [
                    line["jobs"],
                    f"{line['pictures']:,}",
                    f"{found.hours:.2f}",
                    f"{60 * found.tail:.1f}",
                    f"{found.failures:,}",
                    f"{100 * again / parts:.2f} %",
                    f"{100 * (found.busy / useful - 1):+.1f} %",
                ]
            )
        outage = with_outage(plan_of(Path(scratch) / "run", images, SHARDS[1]), workers, seed)
    header = ["jobs", "pictures a job", "hours", "tail, minutes", "failures"]
    header += ["computed again", "machine time"]
    tables = {
        f"{images:,} pictures, {workers:,} workers, at least {least:.2f} hours": (header, lines),
        "All machines go down once": (["parts before", "after", "hours", "lost"], [outage]),
    }
    save(options.out, "shards", {"measured": measured, "outage": outage}, tables)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
