"""The boxes that an evaluation measures: those of a run by option, or given ones."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from typing_extensions import override

from kgradcam import progress
from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import DataWarning
from kgradcam.evaluation.baselines import centre_box, full_frame, random_heatmaps
from kgradcam.evaluation.rows import GIVEN, HEATMAP, Option
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows

AT_ONCE = 2**22
"""The most heatmaps times options whose boxes are in memory at once, unless one option has more."""


class Tables(Mapping[Option, Detections]):
    """Boxes by option, read or drawn when they are used; those of one group are in memory.

    Args:
        groups: The options, in groups that are made together.
        make: Returns the boxes of each option of a group.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Option]],
        make: Callable[[Sequence[Option]], Mapping[Option, Detections]],
    ) -> None:
        self.groups = groups
        self._make = make
        self._group_of = {option: i for i, group in enumerate(groups) for option in group}
        self._made: tuple[int, Mapping[Option, Detections]] = (-1, {})

    @override
    def __getitem__(self, option: Option) -> Detections:
        group = self._group_of[option]
        if group != self._made[0]:
            self._made = (-1, {})  # before the next group is made
            self._made = (group, self._make(self.groups[group]))
        return self._made[1][option]

    @override
    def __iter__(self) -> Iterator[Option]:
        return iter(self._group_of)

    @override
    def __len__(self) -> int:
        return len(self._group_of)

    def changed(self, change: Callable[[Detections], Detections]) -> "Tables":
        """Returns these boxes after a change."""
        return Tables(self.groups, lambda group: {option: change(self[option]) for option in group})


@dataclass(frozen=True)
class BoxTables:
    """Boxes to measure.

    Attributes:
        ground_truth: The annotated boxes.
        tables: The predicted boxes of each option.
        source: Their origin, as in `Result.source`.
        run: The run that they come from; `None` for given boxes.
        box_options: The rules that they were drawn with, apart from the option.
    """

    ground_truth: GroundTruth
    tables: Tables
    source: Mapping[str, Any]
    run: Run | None = None
    box_options: BoxOptions | None = None

    def keep(self, rows: str) -> "BoxTables":
        """Keeps all boxes of each image and class, or only one; see `runs.tables.keep_rows`."""
        if rows == "all":
            return replace(self, source={**self.source, "rows": rows})
        tables = self.tables.changed(lambda table: keep_rows(table, rows))
        return replace(self, tables=tables, source={**self.source, "rows": rows})

    def each(self, quiet: bool) -> Iterator[tuple[Option, Detections]]:
        """Yields the boxes of each option, and shows the progress of their evaluation."""
        quiet = quiet or self.run is None
        for group in self.tables.groups:
            detections = self.tables[group[0]]  # makes the group, with a bar of its own
            with progress.bar("scores", len(group), "options", quiet) as advance:
                for option in group:
                    detections = self.tables[option]
                    yield option, detections
                    advance(1)

    def baselines(self, option: Option, seed: int) -> dict[str, Detections]:
        """Returns boxes that need no explanation, by name; for runs also random heatmaps."""
        truth = self.ground_truth
        found = {"full frame": full_frame(truth), "centre box": centre_box(truth)}
        _, radius, threshold = option
        if self.run is None or self.box_options is None or radius is None or threshold is None:
            return found
        noise = random_heatmaps(self.run.heatmaps(), seed)
        drawn = draw_boxes(noise, truth.images, [threshold], [radius], self.box_options)
        found["random heatmap"] = keep_rows(drawn[radius, threshold], self.source["rows"])
        return found


def given_boxes(ground_truth: GroundTruth, detections: Detections) -> BoxTables:
    """Returns given detections, which have no options."""
    given: Option = (GIVEN, None, None)
    tables = Tables([[given]], lambda _: {given: detections})
    return BoxTables(ground_truth, tables, {"images": len(ground_truth.images)})


def boxes_of_run(
    run: Run,
    thresholds: Sequence[float] | None = None,
    radii: Sequence[int] | None = None,
    rows: str = "all",
    box_options: BoxOptions | None = None,
    quiet: bool = True,
) -> BoxTables:
    """Returns the boxes of a run for every pair of smoothing radius and threshold.

    Boxes that the run did not store are drawn from its heatmaps, without the model. Of many
    heatmaps and options they are drawn in several passes over the heatmaps; see `AT_ONCE`.

    Args:
        run: The run.
        thresholds: Heat thresholds in [0, 1]. Default: the run's own, or the default ones of other
            box rules.
        radii: Smoothing radii in pixels. Default: the radius of the box options.
        rows: The boxes of each image and class that count; see `runs.tables.keep_rows`.
        box_options: All other options of boxes. Default: the run's own.
        quiet: Shows no progress on stderr.
    """
    box_options = run.options if box_options is None else box_options
    thresholds = run.default_thresholds(box_options) if thresholds is None else thresholds
    radii = [box_options.smooth_radius] if radii is None else radii
    count = run.info.counts.heatmaps
    stored = run.stores(thresholds, radii, box_options)

    def make(group: Sequence[Option]) -> dict[Option, Detections]:
        levels = list(dict.fromkeys(threshold or 0.0 for _, _, threshold in group))
        widths = list(dict.fromkeys(radius or 0 for _, radius, _ in group))
        if stored:
            found = run.detections(levels)
        else:
            with progress.bar("boxes", count, "heatmaps", quiet) as advance:
                found = draw_boxes(
                    run.heatmaps(), run.ground_truth.images, levels, widths, box_options, advance
                )
        return {
            (HEATMAP, radius, threshold): found[radius, threshold] for radius, threshold in found
        }

    tables = Tables(_groups(thresholds, radii, count), make)
    refined = run.info.refiner is not None and stored
    if run.info.refiner and not stored:
        warnings.warn(
            f"The boxes of {run.folder} are refined. Those of other options are drawn from its "
            "heatmaps, and are not.",
            DataWarning,
            stacklevel=2,
        )
    score = "refined" if refined else box_options.score
    source = {**describe(run), "rows": rows, "score": score}
    return BoxTables(run.ground_truth, tables, source, run, box_options).keep(rows)


def _groups(thresholds: Sequence[float], radii: Sequence[int], heatmaps: int) -> list[list[Option]]:
    """All pairs in one group if their boxes fit into memory, else some of a radius in each."""
    size = max(1, AT_ONCE // max(1, heatmaps))
    options: list[list[Option]] = [
        [(HEATMAP, radius, threshold) for threshold in thresholds] for radius in radii
    ]
    if len(thresholds) * len(radii) <= size:
        return [list(chain.from_iterable(options))]
    return [
        of_radius[start : start + size]
        for of_radius in options
        for start in range(0, len(of_radius), size)
    ]


def describe(run: Run) -> dict[str, Any]:
    """Returns the part of a `source` that every result of a run has."""
    return {
        "dataset": run.info.dataset.name,
        "split": run.info.split,
        "model": run.info.model.name,
        "layer": run.info.model.layer,
        "method": run.info.configuration.method,
        "images": len(run.ground_truth.images),
    }
