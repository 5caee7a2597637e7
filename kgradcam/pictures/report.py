"""A run as one HTML page that works offline: tables, charts, and a gallery of its boxes.

The page embeds its pictures and its script; its content security policy blocks everything else.
Text from a dataset is escaped in the HTML, and the script sets it as text, never as markup.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgradcam import __version__
from kgradcam.data.names import short_name
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.evaluation.heat_check import check_run
from kgradcam.evaluation.results import Result
from kgradcam.metrics.protocol import Protocol
from kgradcam.pictures.charts import draw_charts
from kgradcam.pictures.figures import to_svg
from kgradcam.pictures.report_cards import data_uri, describe_gallery, find_cards
from kgradcam.pictures.report_heat import heat_section
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import RunInfo, SkippedImage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CHECKED = 10_000
"""The most heatmaps on which the place of heat is measured; each takes some milliseconds."""


def build_report(
    run: Run,
    thresholds: Sequence[float] | None,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    *,
    count: int = 1000,
    picture_size: int = 256,
    data_dir: Path | None = None,
    dataset: str | None = None,
    quiet: bool = True,
) -> str:
    """Builds the page.

    Args:
        run: The run. Its photographs are read from its dataset.
        thresholds: Heat thresholds of the tables and charts. Default: the run's own.
        iou_thresholds: The IoU thresholds at which a box counts as correct.
        protocol: The rules of matching and of AP.
        count: The number of heatmaps in the gallery, the worst first; without annotated objects
            the most doubtful. With 0 the dataset is not
            needed.
        picture_size: The longer side of their pictures in pixels.
        data_dir: The folder of tensorflow-datasets.
        dataset: The dataset, if it was moved. Default: that of the run.
        quiet: Shows no progress on stderr.

    Returns:
        The page, about 16 kB for each heatmap.

    Raises:
        UserError: The run is unreadable; or its dataset, or an image of it, is missing or
            unreadable.
    """
    evaluation = evaluate_run(run, thresholds, iou_thresholds, protocol, quiet=quiet)
    threshold = evaluation.best[2]
    assert threshold is not None
    shown = find_cards(run, threshold, count)
    gallery = describe_gallery(run, shown, threshold, picture_size, data_dir, quiet, dataset)
    title = f"{short_name(run.info.model.name)} on {short_name(run.info.dataset.name)}"
    measured = _with_objects(evaluation)
    shown_rows = measured.of_best_option() if evaluation.chosen_on_the_test else measured
    charts = draw_charts(measured)
    script = _read_part("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(title),
        "digest": digest,
        "style": _read_part("report.css"),
        "script": script,
        "headline": html.escape(_headline(evaluation)),
        "summary": html.escape(_summary(run, evaluation, len(shown))),
        "table_title": html.escape(shown_rows.title),
        "table": _table(*shown_rows.table()),
        "charts": _charts({"precision-recall": charts.pop("precision-recall")}),
        "grid": _grid(evaluation, charts) if evaluation.chosen_on_the_test else "",
        "looks": _looks(run, quiet),
        "configuration": _configuration(run.info),
        "skipped": _skipped(run.info.skipped),
        "version": html.escape(__version__),
        "last_step": str(len(gallery["thresholds"]) - 1),
        "data": _json(gallery),
    }
    # In one pass, so that a placeholder in the text of a part stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read_part("report.html"))


def _looks(run: Run, quiet: bool) -> str:
    total = run.info.counts.heatmaps
    if not total:
        return "<p>No heatmaps.</p>"
    section = heat_section(check_run(run, quiet, _MOST_CHECKED))
    if total > _MOST_CHECKED:
        section = f"<p>Measured on {_MOST_CHECKED:,} of {total:,} heatmaps.</p>\n{section}"
    return section


def _read_part(name: str) -> str:
    return (resources.files("kgradcam.pictures") / name).read_text("utf-8")


def _json(data: Any) -> str:
    """JSON in which an HTML parser finds neither tags nor entities."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _summary(run: Run, evaluation: Result, shown: int) -> str:
    total = run.info.counts.heatmaps
    first = "worst" if len(run.ground_truth.boxes) else "most doubtful"
    which = f"all {total:,}" if shown == total else f"the {first} {shown:,} of {total:,}"
    chosen = ""
    if evaluation.chosen_on_the_test:
        chosen = ", the best, selected on the data that it is scored on"
    return (
        f"{len(run.ground_truth.images):,} images, {total:,} heatmaps, "
        f"{run.info.counts.skipped} images skipped. The gallery shows {which} "
        f"heatmaps, with the boxes of threshold {evaluation.best[2]:g}{chosen}."
    )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in lines
    )
    return f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"


def _with_objects(evaluation: Result) -> Result:
    """Without the classes that have no objects, unless all are."""
    empty = {row.class_name for row in evaluation.rows if not row.counts["ground_truths"]}
    rows = tuple(row for row in evaluation.rows if row.class_name not in empty)
    curves = tuple(curve for curve in evaluation.curves if curve.class_name not in empty)
    return replace(evaluation, rows=rows, curves=curves) if rows else evaluation


def _headline(evaluation: Result) -> str:
    """The AP of the best option at each IoU, in a sentence."""
    if not any(row.counts["ground_truths"] for row in evaluation.rows):
        return "Nothing is annotated, so there is no AP. The most doubtful images come first."
    values = [
        f"{100 * evaluation.value(f'ap@{iou}'):.1f} % at IoU {iou:g}" for iou in evaluation.ious
    ]
    name = "Mean AP" if len(evaluation.classes) > 1 else f"AP of {evaluation.headline}"
    return f"{name}: {', '.join(values)}."


def _grid(evaluation: Result, charts: "Mapping[str, Figure]") -> str:
    """The table and the charts of all options, folded."""
    return (
        f"<details><summary>All options</summary>\n<div class='scroll' tabindex='0' role='region' "
        f"aria-label='table of all options'>\n<table><caption>{html.escape(evaluation.title)}"
        f"</caption>\n{_table(*evaluation.table())}</table></div>\n"
        f"<div class='charts'>{_charts(charts)}</div></details>"
    )


def _charts(charts: "Mapping[str, Figure]") -> str:
    """The charts of `kgradcam evaluate --out`, as embedded SVG."""
    images = []
    for figure in charts.values():
        source = data_uri("image/svg+xml", to_svg(figure).encode())
        text = html.escape(figure.get_suptitle().replace("\n", ", "))
        images.append(f'<img src="{source}" alt="{text}">')
    return "\n".join(images)


def _configuration(info: RunInfo) -> str:
    """The content of run.json as definitions, one for each value that is set."""
    content = asdict(info)
    # A page that is mailed shows no folders of this machine.
    for part in (content["configuration"], content["dataset"], content["model"]):
        for name in ("dataset", "name", "folder", "model", "weights"):
            if part.get(name):
                part[name] = short_name(part[name])
    boxes = content["configuration"].pop("boxes")
    parts = {"": content["configuration"], "boxes": boxes}
    parts |= {name: content[name] for name in ("dataset", "model", "counts", "versions")}
    lines = [
        (f"{part} {name}".strip(), value)
        for part, values in parts.items()
        for name, value in values.items()
        if value is not None
    ]
    return "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(_text(value))}</dd>\n"
        for name, value in lines
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _skipped(skipped: Sequence[SkippedImage]) -> str:
    rows = [
        f"<li><b>{html.escape(each.file)}</b> {html.escape(each.reason)}</li>" for each in skipped
    ]
    return f"<ul>{''.join(rows)}</ul>" if rows else "<p>None.</p>"
