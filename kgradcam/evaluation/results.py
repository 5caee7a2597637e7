"""The result of every evaluation: rows of measurements, and four forms to print them in.

`docs/evaluation.md` describes the fields of `evaluation.json`, which `Result.to_json` returns.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from kgradcam import __version__
from kgradcam.errors import UserError
from kgradcam.evaluation.rows import HEATMAP, Option, Row, best_option, headline
from kgradcam.evaluation.tables import Layout, Table, latex, markdown, table_of

SCHEMA = 2


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
    def classes(self) -> list[str]:
        """The names of the classes, the mean included, in the order of the rows."""
        return list(dict.fromkeys(row.class_name for row in self.rows))

    @cached_property
    def headline(self) -> str:
        """The class name that summarizes the result: `"mean"`, or the only class."""
        return headline(self.rows)

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

    def to_latex(self) -> str:
        """Returns the table as a `tabular` of LaTeX, below its title in a comment."""
        return f"% {self.title}\n{latex(*self.table())}"

    def table(self, layout: Layout = "wide") -> Table:
        """Returns a header and lines of text; see `table_of`."""
        return table_of(self.rows, self.percent, layout)

    def of_best_option(self) -> "Result":
        """The rows of the best option alone, for each class."""
        rows = tuple(row for row in self.rows if row.option == self.best)
        return replace(
            self, title=f"The best option by class{', percent' * self.percent}", rows=rows
        )

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


def _curve_record(curve: PrecisionRecallCurve) -> dict[str, Any]:
    return {
        "class": curve.class_name,
        "iou": curve.iou,
        "recall": [round(each, 6) for each in curve.recall],
        "precision": [round(each, 6) for each in curve.precision],
    }


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
