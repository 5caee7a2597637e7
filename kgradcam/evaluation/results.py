"""The result of every evaluation: rows of measurements, and four forms to print them in.

`docs/evaluation.md` describes the fields of `evaluation.json`, which `Result.to_json` returns.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kgradcam import __version__
from kgradcam.errors import UserError

SCHEMA = 2
MEAN = "mean"
HEATMAP, GIVEN = "heatmap", "given"
SHOWN = 20
"""The number of options that a printed table shows at most, baselines aside."""

DIFFERENCE = "difference"
MIN_IMAGES = 6
"""The fewest images that can support a difference. Five agree by chance in 1 of 16 cases."""
_LABELS = {"ap": "AP", "detections": "boxes", "ground_truths": "objects"}
_NO_FRACTIONS = ("at",)  # a threshold, which is never printed in percent

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


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision over recall, one point a box.

    Attributes:
        class_name: The class.
        iou: Intersection over union from which a box counts as correct.
        recall: `[boxes]`, non-decreasing, in [0, 1].
        precision: `[boxes]`, in [0, 1].
    """

    class_name: str
    iou: float
    recall: Sequence[float]
    precision: Sequence[float]


@dataclass(frozen=True)
class Result:
    """The measurements of one evaluation.

    Attributes:
        title: The subject of the table and its unit, in one line.
        protocol: The rules: at least `name`.
        rows: By class, then option, then IoU.
        source: The origin of the measurements; see `docs/evaluation.md`.
        curves: Precision over recall for the best option; AP protocols only.
        percent: Whether measures are fractions that are printed in percent.
    """

    title: str
    protocol: Mapping[str, Any]
    rows: tuple[Row, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[PrecisionRecallCurve, ...] = ()
    percent: bool = True

    @cached_property
    def ious(self) -> list[float]:
        """The IoU thresholds, in increasing order."""
        return sorted({row.iou for row in self.rows if row.iou is not None})

    @cached_property
    def headline(self) -> str:
        """The class name that summarizes the result: `"mean"`, or the only class."""
        names = {row.class_name for row in self.rows}
        return MEAN if len(names) > 1 else names.pop()

    @cached_property
    def best(self) -> Option:
        """The option with the highest mean AP over classes and IoU; see `best_option`."""
        return best_option(self.rows)

    @property
    def chosen_on_the_test(self) -> bool:
        """Whether the best of several options was selected on the data it is scored on."""
        return len({row.option for row in self.rows if row.boxes == HEATMAP}) > 1

    def value(self, metric: str, option: Option | None = None) -> float:
        """Returns a measure at an IoU, as the mean over classes.

        Args:
            metric: Such as `"ap@0.5"` or `"recall@0.3"`; see `parse_metric`.
            option: Default: the best.

        Raises:
            UserError: The measure does not exist, or was not taken at this IoU.
        """
        name, iou = parse_metric(metric)
        row = self._headlines.get((self.best if option is None else option, iou))
        if row is None:
            raise UserError(
                f"metric={metric!r} was not measured. IoU measured: "
                f"{', '.join(f'{each:g}' for each in self.ious)}."
            )
        return row.measures[name]

    @cached_property
    def _headlines(self) -> dict[tuple[Option, float | None], Row]:
        rows = (row for row in self.rows if row.class_name == self.headline)
        return {(row.option, row.iou): row for row in rows}

    def to_json(self) -> str:
        """Returns one JSON object, the content of `evaluation.json`."""
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "kgradcam": __version__,
            "protocol": dict(self.protocol),
            "source": dict(self.source),
        }
        if self.curves:
            _, radius, threshold = self.best
            content["best"] = {"radius": radius, "threshold": threshold}
        content["rows"] = [
            {name: _defined(value) for name, value in record.items()} for record in self._records()
        ]
        if self.curves:
            content["curves"] = [_curve_record(curve) for curve in self.curves]
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)

    def to_csv(self) -> str:
        """Returns one line a row, values as in JSON; an interval takes two columns."""
        lines = []
        for record in self._records():
            cells: dict[str, Any] = {}
            for name, value in record.items():
                if name.endswith("_interval"):
                    low, high = value or (None, None)
                    stem = name.removesuffix("_interval")
                    cells |= {f"{stem}_low": low, f"{stem}_high": high}
                else:
                    cells[name] = value
            lines.append(cells)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return buffer.getvalue()

    def to_markdown(self) -> str:
        """Returns the table as Markdown, below its title."""
        return f"{self.title}.\n\n{markdown(*self.table())}"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns a header and lines of text: one line for each class, run and option.

        Of more than `SHOWN` options only those with the highest mean AP are included.
        """
        first = self.rows[0]
        ious: Sequence[float | None] = self.ious or [None]
        columns = self._option_columns()
        measured = [(name, iou) for name in first.measures for iou in ious]
        header = ["class", *columns, *(_LABELS.get(name, name) for name in first.counts)]
        header += [
            _LABELS.get(name, name) + ("" if iou is None else f"@{iou:g}") for name, iou in measured
        ]
        shown = _shown(self.rows)
        groups: dict[Any, dict[float | None, Row]] = {}
        for row in self.rows:
            if row.option in shown:
                groups.setdefault((row.class_name, row.run, row.option), {})[row.iou] = row
        lines = []
        for by_iou in groups.values():
            row = next(iter(by_iou.values()))
            line = [row.class_name, *(_option_cell(row, name) for name in columns)]
            line += [str(count) for count in row.counts.values()]
            line += [self._cell(by_iou[iou], name) for name, iou in measured]
            lines.append(line)
        return header, lines

    def _option_columns(self) -> list[str]:
        several = len({row.radius for row in self.rows if row.boxes == HEATMAP}) > 1
        compared = any(row.run is not None for row in self.rows)
        drawn = any(row.boxes is not None for row in self.rows)
        wanted = {"run": compared, "radius": several or compared, "threshold": drawn}
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def _cell(self, row: Row, name: str) -> str:
        value, limits = row.measures[name], row.intervals.get(name)
        if math.isnan(value):
            return "-"
        if name in _NO_FRACTIONS:
            return f"{value:g}"
        if not self.percent:
            return f"{value:.3f}"
        if limits is None:
            return f"{100 * value:.2f}"
        low, high = (100 * each for each in limits)
        if name == DIFFERENCE:
            few = row.counts.get("images", MIN_IMAGES) < MIN_IMAGES
            mark = "" if low <= 0 <= high or few else " *"
            return f"{100 * value:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"
        return f"{100 * value:.1f} [{low:.1f}, {high:.1f}]"

    def _records(self) -> list[dict[str, Any]]:
        """The rows as flat dicts with the same keys."""
        groups = (("run",), ("boxes", "radius", "threshold"), ("iou",))
        keys = [
            name
            for group in groups
            if any(getattr(row, name) is not None for name in group for row in self.rows)
            for name in group
        ]
        return [
            {
                "class": row.class_name,
                **{name: getattr(row, name) for name in keys},
                **row.measures,
                **row.counts,
                **{f"{name}_interval": limits for name, limits in row.intervals.items()},
            }
            for row in self.rows
        ]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table: the first column aligned left, the others right.

    Line breaks in cells become spaces, and `|` is escaped.
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    rows = [[" ".join(cell.split()).replace("|", "\\|") for cell in each] for each in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def parse_metric(text: str) -> tuple[str, float]:
    """Parses the name of a measure at an IoU.

    Returns:
        `"ap"` or `"recall"`, and the IoU.

    Raises:
        UserError: `text` has another form.

    Example:
        >>> parse_metric("ap@0.5")
        ('ap', 0.5)
    """
    name, _, iou = text.lower().partition("@")
    try:
        if name in ("ap", "recall") and 0 <= float(iou) <= 1:
            return name, float(iou)
    except ValueError:
        pass
    raise UserError(f"metric must be ap@IOU or recall@IOU, as ap@0.5. Received: {text!r}.")


def best_option(rows: Sequence[Row]) -> Option:
    """Returns the option with the highest mean AP over classes and IoU; the first of equals.

    Baselines are not eligible.
    """
    scores = _mean_ap([row for row in rows if row.boxes in (HEATMAP, GIVEN)])
    return max(scores, key=lambda option: scores[option])


def shortened(rows: Sequence[Row]) -> str:
    """Returns the part of a title that discloses a shortened table, or an empty string."""
    count = len({row.option for row in rows if row.boxes == HEATMAP})
    return f"; the best {SHOWN} of {count} options" if count > SHOWN else ""


def _shown(rows: Sequence[Row]) -> set[Option]:
    options = {row.option for row in rows}
    drawn = {option for option in options if option[0] == HEATMAP}
    if len(drawn) <= SHOWN:
        return options
    scores = _mean_ap([row for row in rows if row.option in drawn])
    return (options - drawn) | set(sorted(scores, key=lambda option: -scores[option])[:SHOWN])


def _mean_ap(rows: Sequence[Row]) -> dict[Option, float]:
    values: dict[Option, list[float]] = {}
    for row in rows:
        found = values.setdefault(row.option, [])
        ap = row.measures.get("ap", math.nan)
        if row.class_name != MEAN and not math.isnan(ap):
            found.append(ap)
    return {option: sum(found) / len(found) if found else 0.0 for option, found in values.items()}


def _option_cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None:
        return str(row.boxes) if name == "threshold" else "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _curve_record(curve: PrecisionRecallCurve) -> dict[str, Any]:
    return {
        "class": curve.class_name,
        "iou": curve.iou,
        "recall": [round(each, 6) for each in curve.recall],
        "precision": [round(each, 6) for each in curve.precision],
    }


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
