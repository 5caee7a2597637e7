"""Charts of an evaluation: AP over the box options, and precision over recall."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kgradcam.data.names import short_name
from kgradcam.evaluation.results import Result
from kgradcam.evaluation.rows import DIFFERENCE, HEATMAP, MEAN, Row
from kgradcam.pictures.figures import drawable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_INCHES = 3.6
_MAX_IOUS = 3  # panels of the charts that have one for each IoU
_COLUMNS = 4
CHARTS = ("precision-recall", "thresholds", "options", "differences")
"""The names of all charts."""
_PALEST = 0.7  # end of the colormaps for lines; beyond it they are too pale on white


def draw_charts(evaluation: Result) -> "dict[str, Figure]":
    """Draws every chart that an evaluation has the data for.

    Args:
        evaluation: The measurements.

    Returns:
        Figures by name. `precision-recall`: precision over recall, a panel for each class.
        `thresholds`, if several were measured: AP over the threshold, a line for each radius.
        `options`, if also several radii were measured: AP over radius and threshold.
        Of compared runs `differences`: the difference of AP for each class and IoU, with intervals.
    """
    if DIFFERENCE in evaluation.rows[0].measures:
        return {"differences": _draw_differences(evaluation)}
    if not evaluation.curves:
        return {}
    rows = [
        row
        for row in evaluation.rows
        if row.boxes == HEATMAP and row.class_name == evaluation.headline
    ]
    figures = {"precision-recall": _draw_precision_recall(evaluation)}
    if len({row.threshold for row in rows}) > 1:
        figures["thresholds"] = _draw_thresholds(evaluation, rows)
        if len({row.radius for row in rows}) > 1:
            figures["options"] = _draw_options(evaluation, rows)
    return figures


def _draw_thresholds(evaluation: Result, rows: Sequence[Row]) -> "Figure":
    import matplotlib

    ious = _some(evaluation.ious)
    figure, panels = _panels(len(ious), f"AP over the heat threshold\n{_subject(evaluation)}")
    baselines = [
        row
        for row in evaluation.rows
        if row.threshold is None and row.class_name == evaluation.headline
    ]
    for axes, iou in zip(panels, ious, strict=True):
        radii, thresholds, values, best = _grid(rows, iou)
        colors = matplotlib.colormaps["viridis"](np.linspace(0, _PALEST, len(radii)))
        lines = zip(radii, values, colors, _widths(len(radii)), strict=True)
        for radius, line, color, width in lines:
            axes.plot(thresholds, line, color=color, label=f"radius {radius}", linewidth=width)
        here = [row for row in baselines if row.iou == iou]
        for row, style in zip(here, ("--", ":", "-."), strict=False):
            height = 100 * row.measures["ap"]
            axes.axhline(height, color="0.45", linestyle=style, linewidth=1, label=row.boxes)
        x, y = thresholds[best[1]], values[best]
        axes.plot(x, y, "o", color="#d6336c", markersize=6)
        axes.set_title(f"IoU {iou:g}: best {y:.1f} at {x:g}", fontsize=10)
        axes.set(xlabel="heat threshold", ylabel="AP, percent")
        axes.margins(y=0.12)
        axes.grid(alpha=0.25)
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:  # one scale, so that panels compare at a glance
        axes.set_ylim(0, top)
    _legend(figure, panels[0])
    return figure


def _draw_options(evaluation: Result, rows: Sequence[Row]) -> "Figure":
    ious = _some(evaluation.ious)
    figure, panels = _panels(len(ious), f"AP over radius and threshold\n{_subject(evaluation)}")
    grids = [_grid(rows, iou) for iou in ious]
    limits = {"vmin": 0, "vmax": np.nanmax([values for _, _, values, _ in grids])}
    for axes, iou, (radii, thresholds, values, (y, x)) in zip(panels, ious, grids, strict=True):
        image = axes.imshow(values, aspect="auto", origin="lower", cmap="viridis", **limits)
        axes.plot(x, y, "o", markerfacecolor="none", markeredgecolor="#d6336c", markersize=9, mew=2)
        ticks = np.unique(np.linspace(0, len(thresholds) - 1, min(6, len(thresholds))).astype(int))
        axes.set_xticks(ticks, [f"{thresholds[i]:g}" for i in ticks])
        axes.set_yticks(range(len(radii)), [str(radius) for radius in radii])
        best = f"best {values[y, x]:.1f} at {thresholds[x]:g}, radius {radii[y]}"
        axes.set_title(f"IoU {iou:g}: {best}", fontsize=9)
        axes.set(xlabel="heat threshold", ylabel="smoothing radius, pixels")
    figure.colorbar(image, ax=panels, shrink=0.85, label="AP, percent")
    return figure


def _draw_differences(evaluation: Result) -> "Figure":
    import matplotlib

    rows = [row for row in evaluation.rows if row.intervals.get(DIFFERENCE)]
    names = sorted(evaluation.classes, key=lambda name: name != MEAN)
    runs = list(dict.fromkeys(row.run for row in rows))
    ious = _some(evaluation.ious)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, _PALEST, len(runs)))
    figure, panels = _panels(len(ious), "AP minus that of the first run, with 95 % intervals")
    for axes, iou in zip(panels, ious, strict=True):
        axes.axvline(0, color="0.45", linewidth=1)
        for i, (run, color) in enumerate(zip(runs, colors, strict=True)):
            here = [row for row in rows if row.run == run and row.iou == iou]
            limits = np.array([row.intervals[DIFFERENCE] for row in here], np.float64)
            values = np.array([row.measures[DIFFERENCE] for row in here])
            axes.errorbar(
                100 * values,
                # Runs of one class lie below one another.
                [names.index(row.class_name) + 0.6 * (i + 0.5) / len(runs) - 0.3 for row in here],
                xerr=100 * np.abs(limits.T - values),
                fmt="o",
                color=color,
                capsize=2,
                label=drawable(Path(str(run)).name),
            )
        axes.set_yticks(range(len(names)), [drawable(name) for name in names], parse_math=False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(f"IoU {iou:g}", fontsize=10)
        axes.set(xlabel="difference of AP, percent")
        axes.grid(alpha=0.25)
    left, right = zip(*(axes.get_xlim() for axes in panels), strict=True)
    for axes in panels:
        axes.set_xlim(min(left), max(right))
    _legend(figure, panels[0])
    return figure


def _widths(count: int) -> Any:
    """Widths of lines, in points. Narrow ones over wide ones: equal lines do not hide another."""
    return np.linspace(1.4 + 0.9 * min(count - 1, 3), 1.4, count)


def _grid(rows: Sequence[Row], iou: float) -> tuple[list[int], list[float], Any, tuple[int, int]]:
    """Radii, thresholds, AP in percent at each pair of them, and the place of the highest."""
    found = {
        (row.radius or 0, row.threshold or 0.0): row.measures["ap"]
        for row in rows
        if row.iou == iou
    }
    radii, thresholds = (sorted(set(each)) for each in zip(*found, strict=True))
    pairs = [[found.get((radius, x), math.nan) for x in thresholds] for radius in radii]
    values = 100 * np.array(pairs)
    y, x = divmod(int(np.nan_to_num(values, nan=-1).argmax()), len(thresholds))
    return radii, thresholds, values, (y, x)


def _draw_precision_recall(evaluation: Result) -> "Figure":
    import matplotlib

    drawn = [curve for curve in evaluation.curves if len(curve.recall)]
    names = list(dict.fromkeys(curve.class_name for curve in drawn or evaluation.curves))
    ious = evaluation.ious
    colors = matplotlib.colormaps["plasma"](np.linspace(0, _PALEST, len(ious)))
    widths = _widths(len(ious))
    boxes, radius, threshold = evaluation.best
    found = {
        (row.class_name, row.iou): f"{100 * row.measures['ap']:.1f}"
        for row in evaluation.rows
        if row.option == evaluation.best
    }
    at = f"threshold {threshold:g}, radius {radius}" if boxes == HEATMAP else "given boxes"
    figure, panels = _panels(len(names), f"Precision over recall\n{_source(evaluation)}, {at}")
    alone = len(names) == 1
    for axes, name in zip(panels, names, strict=True):
        for curve in evaluation.curves:
            if curve.class_name == name:
                ap = found.get((name, curve.iou))
                color = colors[ious.index(curve.iou)]
                axes.plot(
                    *(100 * np.array(each) for each in (curve.recall, curve.precision)),
                    color=color,
                    linewidth=widths[ious.index(curve.iou)],
                    label=f"IoU {curve.iou:g}" + (f": AP {ap}" if alone and ap else ""),
                )
        # The legend of several panels has no place for the AP of each.
        aps = [] if alone or len(ious) > _MAX_IOUS else [found.get((name, iou)) for iou in ious]
        title = f"{name}: AP {', '.join(map(str, aps))}" if all(aps) and aps else name
        axes.set_title(drawable(title), fontsize=10, parse_math=False)
        shorten(axes.title, _PANEL_INCHES * figure.dpi)
        axes.set(xlabel="recall, percent", ylabel="precision, percent")
        axes.set(xlim=(0, 100), ylim=(0, 103))
        axes.grid(alpha=0.25)
    _legend(figure, panels[0])
    return figure


def _legend(figure: "Figure", panel: "Axes") -> None:
    """Puts one legend for all panels beside them, where it covers no line."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=9, frameon=False)


def _panels(count: int, title: str) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(count, _COLUMNS)
    down = math.ceil(count / across)
    figure = Figure(
        figsize=(across * _PANEL_INCHES + 1.2, down * _PANEL_INCHES * 0.85 + 0.4),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, parse_math=False)
    grid: Any = figure.subplots(down, across, squeeze=False)
    panels = list(grid.ravel())
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _some(ious: Sequence[float]) -> list[float]:
    """Selects at most `_MAX_IOUS`, evenly spread."""
    places = np.linspace(0, len(ious) - 1, min(len(ious), _MAX_IOUS)).round().astype(int)
    return [ious[i] for i in places]


def _subject(evaluation: Result) -> str:
    return f"{_source(evaluation)}, {drawable(evaluation.headline)}"


def _source(evaluation: Result) -> str:
    source = evaluation.source
    where = "given boxes"
    if "dataset" in source:
        where = f"{short_name(str(source['dataset']))} {source['split']}"
    return drawable(f"{where}, {evaluation.protocol['name']}")
