"""The boxes that an evaluation measures: those of a run by option, or given ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kgradcam import progress
from kgradcam.boxes.options import BoxOptions
from kgradcam.evaluation.baselines import centre_box, full_frame, random_heatmaps
from kgradcam.evaluation.rows import GIVEN, HEATMAP, Option
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows


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
    tables: Mapping[Option, Detections]
    source: Mapping[str, Any]
    run: Run | None = None
    box_options: BoxOptions | None = None

    def keep(self, rows: str) -> "BoxTables":
        """Keeps all boxes of each image and class, or only one; see `runs.tables.keep_rows`."""
        tables = {option: keep_rows(table, rows) for option, table in self.tables.items()}
        return replace(self, tables=tables, source={**self.source, "rows": rows})

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
    source = {"images": len(ground_truth.images)}
    return BoxTables(ground_truth, {(GIVEN, None, None): detections}, source)


def boxes_of_run(
    run: Run,
    thresholds: Sequence[float] | None = None,
    radii: Sequence[int] | None = None,
    rows: str = "all",
    box_options: BoxOptions | None = None,
    quiet: bool = True,
) -> BoxTables:
    """Returns the boxes of a run for every pair of smoothing radius and threshold.

    Boxes that the run did not store are drawn from its heatmaps, without the model.

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
    with progress.bar("boxes", run.info.counts.heatmaps, "heatmaps", quiet) as advance:
        drawn = run.detections(thresholds, radii, box_options, advance)
    tables: dict[Option, Detections] = {
        (HEATMAP, radius, threshold): drawn[radius, threshold]
        for radius in radii
        for threshold in thresholds
    }
    source = {**describe(run), "rows": rows, "score": box_options.score}
    return BoxTables(run.ground_truth, tables, source, run, box_options).keep(rows)


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
