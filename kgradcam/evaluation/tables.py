"""Rows of an evaluation as text: lines of cells, and tables in Markdown and LaTeX."""

import math
from collections.abc import Sequence
from typing import Literal

from kgradcam.evaluation.rows import (
    DIFFERENCE,
    HEATMAP,
    MEAN,
    MIN_IMAGES,
    Option,
    Row,
    headline,
    mean_ap,
)

SHOWN = 20
"""The number of options that a table shows at most, baselines aside."""

_LABELS = {"ap": "AP", "detections": "boxes", "ground_truths": "objects"}
_NO_FRACTIONS = ("at",)  # a threshold, which is never printed in percent
_LATEX = {**{each: f"\\{each}" for each in "&%$#_{}"}, "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}

Layout = Literal["wide", "by iou", "by measure"]
Table = tuple[list[str], list[list[str]]]


def table_of(rows: Sequence[Row], percent: bool, layout: Layout = "wide") -> Table:
    """Returns a header and lines of text.

    The mean over classes comes first. If the AP of several options was measured, only their means
    are included, the best first, `SHOWN` at most; options with equal values share a line.

    Args:
        rows: The rows of a result.
        percent: Whether measures are fractions, to be printed in percent.
        layout: Whether all measures of a class share a line, or each IoU has a line, or each
            measure.
    """
    ious: list[float | None] = [*sorted({row.iou for row in rows if row.iou is not None})] or [None]
    names = list(rows[0].measures)
    by_iou, by_measure = layout != "wide" and ious != [None], layout == "by measure"
    columns = _option_columns(rows)
    header = ["class", *columns, *(_LABELS.get(name, name) for name in rows[0].counts)]
    header += ["IoU"] * by_iou + ["measure"] * by_measure
    across = [
        (name, iou)
        for name in ([None] if by_measure else names)
        for iou in ([None] if by_iou else ious)
    ]
    header += [_column(name, iou) for name, iou in across]
    lines = []
    for group, more in _groups(rows):
        first = next(iter(group.values()))
        start = [first.class_name, *(_option_cell(first, name) for name in columns)]
        start[-1] += f" and {more} more" if more else ""
        start += [str(count) for count in first.counts.values()]
        for iou in ious if by_iou else [None]:
            for name in names if by_measure else [None]:
                line = [*start]
                if iou is not None:
                    line.append(f"{iou:g}")
                if name is not None:
                    line.append(_LABELS.get(name, name))
                for each_name, each_iou in across:
                    row = group[iou if by_iou else each_iou]
                    line.append(_cell(row, name or each_name or "", percent))
                lines.append(line)
    return header, lines


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table: the first column aligned left, the others right.

    Line breaks in cells become spaces, and `|` is escaped.
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    rows = [[" ".join(cell.split()).replace("|", "\\|") for cell in each] for each in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def latex(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a `tabular` of LaTeX with the rules of its package booktabs."""
    rows = [
        " & ".join(
            "".join(_LATEX.get(each, each) for each in " ".join(cell.split())) for cell in row
        )
        for row in (header, *lines)
    ]
    body = " \\\\\n".join(rows[1:])
    return (
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n\\toprule\n{rows[0]} \\\\\n\\midrule\n"
        f"{body} \\\\\n\\bottomrule\n\\end{{tabular}}"
    )


def shortened(rows: Sequence[Row]) -> str:
    """Returns the part of a title that discloses a grid, or an empty string."""
    count = len({row.option for row in rows if row.boxes == HEATMAP})
    if count > SHOWN:
        return f"; the best {SHOWN} of {count} options, best first"
    return f"; {count} options, best first" if count > 1 else ""


def _groups(rows: Sequence[Row]) -> list[tuple[dict[float | None, Row], int]]:
    """The rows of each line by IoU, and the number of further options with the same values."""
    drawn = {row.option for row in rows if row.boxes == HEATMAP}
    scores = {}
    if len(drawn) > 1 and "ap" in rows[0].measures:
        scores = mean_ap([row for row in rows if row.option in drawn])
    if scores:
        name = headline(rows)
        rows = [row for row in rows if row.class_name == name]
    groups: dict[tuple[str, str | None, Option], dict[float | None, Row]] = {}
    for row in sorted(rows, key=lambda row: row.class_name != MEAN):
        groups.setdefault((row.class_name, row.run, row.option), {})[row.iou] = row
    if not scores:
        return [(group, 0) for group in groups.values()]
    found: list[tuple[dict[float | None, Row], int]] = []
    baselines = [(group, 0) for key, group in groups.items() if key[2] not in drawn]
    for option in sorted(scores, key=lambda option: -scores[option]):
        group = next(group for key, group in groups.items() if key[2] == option)
        if found and _values(group) == _values(found[-1][0]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        elif len(found) < SHOWN:
            found.append((group, 0))
        else:
            break
    return found + baselines


def _values(group: dict[float | None, Row]) -> list[str]:
    """The values of a line, without its option, as text: there NaN equals NaN."""
    return [f"{dict(row.measures)} {dict(row.counts)}" for row in group.values()]


def _option_columns(rows: Sequence[Row]) -> list[str]:
    several = len({row.radius for row in rows if row.boxes == HEATMAP}) > 1
    compared = any(row.run is not None for row in rows)
    drawn = any(row.boxes is not None for row in rows)
    wanted = {"run": compared, "radius": several or compared, "threshold": drawn}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def _option_cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None:
        return str(row.boxes) if name == "threshold" else "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _column(name: str | None, iou: float | None) -> str:
    if name is None:
        return "value"
    return _LABELS.get(name, name) + ("" if iou is None else f"@{iou:g}")


def _cell(row: Row, name: str, percent: bool) -> str:
    value, limits = row.measures[name], row.intervals.get(name)
    if math.isnan(value):
        return "-"
    if name in _NO_FRACTIONS:
        return f"{value:g}"
    if not percent:
        return f"{value:.3f}"
    if limits is None:
        return f"{100 * value:.2f}"
    low, high = (100 * each for each in limits)
    if name == DIFFERENCE:
        few = row.counts.get("images", MIN_IMAGES) < MIN_IMAGES
        mark = "" if low <= 0 <= high or few else " *"
        return f"{100 * value:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"
    return f"{100 * value:.1f} [{low:.1f}, {high:.1f}]"
