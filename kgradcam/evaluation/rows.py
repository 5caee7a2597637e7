"""A row of an evaluation: the measures of one class with one option of boxes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MEAN = "mean"
HEATMAP, GIVEN = "heatmap", "given"
DIFFERENCE = "difference"
MIN_IMAGES = 6
"""The fewest images that can support a difference. Five agree by chance in 1 of 16 cases."""

Interval = tuple[float, float]
Option = tuple[str | None, int | None, float | None]
"""The origin of boxes (`Row.boxes`), their smoothing radius and their heat threshold."""


@dataclass(frozen=True)
class Row:
    """The measures of one class with one option.

    Attributes:
        class_name: The class, or `"mean"` over several.
        measures: Values by name, such as `ap` and `recall`. Fractions in [0, 1] unless the measure
            defines another range; NaN where undefined.
        counts: Counts by name, such as `detections` and `ground_truths`.
        intervals: 95 % bootstrap intervals by the name of the measure; `None` without
            bootstrap, and where undefined.
        run: The folder of the run, where several are compared.
        boxes: The origin of the boxes: `"heatmap"`, `"given"` (read from a file), or the name of
            a baseline.
        radius: Smoothing radius in pixels.
        threshold: Heat threshold in [0, 1].
        iou: Intersection over union from which a box counts as correct.
    """

    class_name: str
    measures: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    run: str | None = None
    boxes: str | None = None
    radius: int | None = None
    threshold: float | None = None
    iou: float | None = None

    @property
    def option(self) -> Option:
        """The options that the boxes were drawn with."""
        return self.boxes, self.radius, self.threshold


def headline(rows: Sequence[Row]) -> str:
    """Returns the class name that summarizes rows: `"mean"`, or the only class."""
    names = {row.class_name for row in rows}
    return MEAN if len(names) > 1 else names.pop()


def best_option(rows: Sequence[Row]) -> Option:
    """Returns the option with the highest mean AP over classes and IoU; the first of equals.

    Baselines are not eligible.
    """
    scores = mean_ap([row for row in rows if row.boxes in (HEATMAP, GIVEN)])
    return max(scores, key=lambda option: scores[option])


def mean_ap(rows: Sequence[Row]) -> dict[Option, float]:
    """Returns the mean AP of each option over classes and IoU, 0 where there is none."""
    values: dict[Option, list[float]] = {}
    for row in rows:
        found = values.setdefault(row.option, [])
        ap = row.measures.get("ap", math.nan)
        if row.class_name != MEAN and not math.isnan(ap):
            found.append(ap)
    return {option: sum(found) / len(found) if found else 0.0 for option, found in values.items()}
