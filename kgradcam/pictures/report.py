"""A run on one page that needs nothing but itself: tables, curves, and a gallery of its boxes.

The page holds its pictures and its program, and its content security policy lets nothing else in.
What comes from a dataset is text to it: escaped where the page is written, and set as text, never
as markup, where the page's program adds it.
"""

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from kgradcam import __version__, progress
from kgradcam.boxes.overlap import box_iou
from kgradcam.data.dataset import open_dataset
from kgradcam.errors import UserError
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.evaluation.results import MEAN, PrecisionRecallCurve, Result
from kgradcam.metrics.average_precision import Protocol
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth, Image

_MOST_CELLS = 64  # of a stored map along a side: finer ones are averaged
_QUALITY = 72
_POINTS = 300  # of a curve
_COLORS = 5  # of lines; the stylesheet has them


@dataclass(frozen=True)
class _Entry:
    """One class on one image: its map, and how its most confident box fits.

    Attributes:
        record: The heatmap.
        image: The image.
        score: The confidence of that box; 0 where there is none.
        iou: Its highest overlap with an object of the class that counts; `None` without any.
    """

    record: ClassHeatmap
    image: Image
    score: float
    iou: float | None

    @property
    def failure(self) -> tuple[float, float]:
        """Sorts the worst first: what fits least, and of those the most confident."""
        return (2.0 if self.iou is None else self.iou), -self.score


def build_report(
    run: Run,
    thresholds: Sequence[float] | None,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    *,
    count: int = 1000,
    picture_size: int = 256,
    data_dir: Path | None = None,
    quiet: bool = True,
) -> str:
    """Writes a run as one HTML page.

    Args:
        run: The run; its pictures are read from its dataset.
        thresholds: Heat thresholds of the tables and curves. Default: the run's own.
        iou_thresholds: The intersections over union at which a box counts as right.
        protocol: How matching and AP are defined.
        count: How many heatmaps the gallery shows, the worst first; 0 for none, and then the
            dataset is not needed.
        picture_size: Their longer side in pixels.
        data_dir: Where tensorflow-datasets keeps its data.
        quiet: Shows no progress on stderr.

    Returns:
        The page, some 10 kB for each picture.

    Raises:
        UserError: The run cannot be read; or its dataset is not there any more, or an image of the
            run is not, or is damaged.
    """
    evaluation = evaluate_run(run, thresholds, iou_thresholds, protocol, quiet=quiet)
    _, radius, threshold = evaluation.best
    assert radius is not None
    assert threshold is not None
    stored = sorted({*run.thresholds, threshold})
    by_threshold = {at: found for (_, at), found in run.detections(stored).items()}
    entries = _entries(run, by_threshold[threshold])
    shown = sorted(entries, key=lambda entry: entry.failure)[:count]
    data = {
        "threshold": threshold,
        "radius": radius,
        "score": run.options.score,
        "rules": run.options.rules,
        "overlap": run.options.iou_threshold,
        "least": run.options.min_relative_score,
        "entries": _gallery(run, shown, by_threshold, picture_size, data_dir, quiet),
    }
    title = f"{run.info['model']['name']} on {evaluation.source['dataset']}"
    style, script = _part("report.css"), _part("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(title),
        "digest": digest,
        "style": style,
        "script": script,
        "summary": html.escape(_summary(run, evaluation, len(shown), len(entries))),
        "table_title": html.escape(evaluation.title),
        "table": _table(*evaluation.table()),
        "curves": _curves(evaluation),
        "configuration": _configuration(run.info),
        "skipped": _skipped(run.info.get("skipped", [])),
        "version": html.escape(__version__),
        "data": _json(data),
    }
    # In one pass, so that no part is looked into for others.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part("report.html"))


def _part(name: str) -> str:
    return (resources.files("kgradcam.pictures") / name).read_text("utf-8")


def _json(data: Any) -> str:
    """JSON that no HTML parser finds a tag in."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _summary(run: Run, evaluation: Result, shown: int, total: int) -> str:
    which = f"all {total:,}" if shown == total else f"the worst {shown:,} of {total:,}"
    chosen = ""
    if evaluation.chosen_on_the_test:
        chosen = ", the best, selected on the data that it is scored on"
    return (
        f"{len(run.ground_truth.images):,} images, {total:,} heatmaps, "
        f"{run.info['counts'].get('skipped', 0)} images skipped. Below are {which} heatmaps, with "
        f"the boxes of threshold {evaluation.best[2]:g}{chosen}."
    )


def _entries(run: Run, found: Detections) -> list[_Entry]:
    truth = run.ground_truth
    images = {image.id: image for image in truth.images}
    objects, boxes = _rows_of(truth), _rows_of(found)
    entries = []
    for record in run.heatmaps():
        key = record.image_id, record.category_id
        mine = boxes.get(key, [])
        annotated = [row for row in objects.get(key, []) if not truth.difficult[row]]
        score, iou = 0.0, 0.0
        if mine:
            first = mine[int(np.argmax(found.scores[mine]))]
            score = float(found.scores[first])
            if annotated:
                iou = float(box_iou(found.boxes[[first]], truth.boxes[annotated]).max())
        entries.append(_Entry(record, images[key[0]], score, iou if annotated else None))
    return entries


def _rows_of(table: GroundTruth | Detections) -> dict[tuple[int, int], list[int]]:
    """The rows of a table by image and class."""
    rows: dict[tuple[int, int], list[int]] = {}
    keys = zip(table.image_ids.tolist(), table.category_ids.tolist(), strict=True)
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows


def _gallery(
    run: Run,
    entries: Sequence[_Entry],
    by_threshold: Mapping[float, Detections],
    picture_size: int,
    data_dir: Path | None,
    quiet: bool,
) -> list[dict[str, Any]]:
    if not entries:
        return []
    truth = run.ground_truth
    pictures = _pictures(run, [entry.image for entry in entries], picture_size, data_dir, quiet)
    objects = _rows_of(truth)
    found = {at: _rows_of(each) for at, each in by_threshold.items()}
    described = []
    for entry in entries:
        record, image = entry.record, entry.image
        key = record.image_id, record.category_id
        annotated = objects.get(key, [])
        described.append(
            {
                "file": image.file_name,
                "class": truth.categories[record.category_id - 1],
                "size": [image.width, image.height],
                "picture": pictures[image.file_name],
                "probability": round(record.probability, 4),
                "score": round(entry.score, 4),
                "iou": None if entry.iou is None else round(entry.iou, 4),
                "map": _encoded_map(record.heatmap),
                "objects": truth.boxes[annotated].tolist(),
                "difficult": [bool(truth.difficult[row]) for row in annotated],
                "boxes": [
                    {
                        "at": at,
                        "boxes": [
                            [*by_threshold[at].boxes[row].tolist(), _short(by_threshold[at], row)]
                            for row in rows.get(key, [])
                        ],
                    }
                    for at, rows in found.items()
                ],
            }
        )
    return described


def _short(detections: Detections, row: int) -> float:
    return round(float(detections.scores[row]), 4)


def _pictures(
    run: Run, images: Sequence[Image], size: int, data_dir: Path | None, quiet: bool
) -> dict[str, str]:
    """Small JPEGs of images as data URIs, by file name."""
    source = run.info["dataset"]
    dataset = open_dataset(source["name"], source["split"], data_dir, quiet)
    wanted = {image.file_name for image in images}
    examples = [example for example in dataset.examples if example.file_name in wanted]
    pictures = {}
    with progress.bar("pictures", len(wanted), "images", quiet) as advance:
        for batch in dataset.batches(examples, 1):
            for example, image in zip(batch.examples, batch.images, strict=True):
                pictures[example.file_name] = _thumbnail(image, size)
            advance(1)
    if missing := wanted - set(pictures):
        raise UserError(f"{source['name']} does not hold a readable {min(missing)} any more.")
    return pictures


def _thumbnail(picture: npt.NDArray[np.uint8], size: int) -> str:
    image = PIL.Image.fromarray(picture)
    image.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _encoded_map(heatmap: npt.NDArray[np.float32]) -> dict[str, Any]:
    """A heatmap between its lowest and highest value, in 16 bits, row by row."""
    height, width = heatmap.shape
    if max(height, width) > _MOST_CELLS:
        scale = _MOST_CELLS / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        heatmap = cv2.resize(heatmap, size, interpolation=cv2.INTER_AREA)
    low, high = float(heatmap.min()), float(heatmap.max())
    steps = (heatmap.astype(np.float64) - low) / (high - low or 1) * 65_535
    values = np.round(steps).astype("<u2").tobytes()
    return {
        "width": heatmap.shape[1],
        "height": heatmap.shape[0],
        "values": base64.b64encode(values).decode(),
    }


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in lines
    )
    return f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"


def _curves(evaluation: Result) -> str:
    """Precision over recall for each class, and AP over the threshold where there are several."""
    figures = []
    headline = [row for row in evaluation.rows if row.class_name == evaluation.headline]
    lines = {
        f"IoU {iou:g}": [
            (row.threshold, row.measures["ap"])
            for row in sorted(headline, key=lambda row: row.threshold or 0)
            if row.iou == iou and row.threshold is not None and not math.isnan(row.measures["ap"])
        ]
        for iou in evaluation.ious
    }
    if len({row.threshold for row in headline}) > 1:
        what = "" if evaluation.headline == MEAN else f" of {evaluation.headline}"
        figures.append(_chart(f"AP{what} over the heat threshold", "threshold", "AP", lines))
    for name in dict.fromkeys(curve.class_name for curve in evaluation.curves):
        lines = {
            f"IoU {curve.iou:g}": _points(curve)
            for curve in evaluation.curves
            if curve.class_name == name
        }
        figures.append(_chart(f"{name}: precision over recall", "recall", "precision", lines))
    return "\n".join(figures)


def _points(curve: PrecisionRecallCurve) -> list[tuple[float, float]]:
    count = len(curve.recall)
    kept = np.unique(np.linspace(0, max(count - 1, 0), min(count, _POINTS)).astype(int))
    return [(curve.recall[i], curve.precision[i]) for i in kept]


def _chart(
    title: str, across: str, up: str, lines: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """A chart of the unit square as SVG, in units of its own: 0 to 100 each way."""
    ticks = "".join(
        f'<path class="grid" d="M{at} 0V100M0 {at}H100"/>'
        f'<text x="{at}" y="108" text-anchor="middle">{at / 100:g}</text>'
        f'<text x="-3" y="{102 - at}" text-anchor="end">{at / 100:g}</text>'
        for at in (0, 50, 100)
    )
    drawn, legend = [], []
    for i, (name, points) in enumerate(lines.items()):
        line = f"line{i % _COLORS}"
        path = " ".join(f"{100 * x:.2f},{100 - 100 * y:.2f}" for x, y in points)
        drawn.append(f'<polyline class="{line}" points="{path}"/>')
        if len(points) == 1:
            x, y = points[0]
            place = f'cx="{100 * x:.2f}" cy="{100 - 100 * y:.2f}"'
            drawn.append(f'<circle class="{line}" {place} r="2"/>')
        legend.append(f'<li class="{line}">{html.escape(name)}</li>')
    title = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{title}</figcaption>'
        f'<svg viewBox="-20 -4 126 124" role="img" aria-label="{title}">{ticks}{"".join(drawn)}'
        f'<text x="50" y="117" text-anchor="middle">{across}</text>'
        f'<text transform="translate(-15 50) rotate(-90)" text-anchor="middle">{up}</text></svg>'
        f'<ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _configuration(info: Mapping[str, Any]) -> str:
    """What run.json says, a line for each value that is set."""
    lines = []
    for part in ("configuration", "boxes", "thresholds", "dataset", "model", "counts", "versions"):
        value = info.get(part)
        items = value.items() if isinstance(value, dict) else [("", value)]
        prefix = "" if part == "configuration" else part
        lines += [(f"{prefix} {name}".strip(), each) for name, each in items if each is not None]
    return "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(_text(value))}</dd>\n"
        for name, value in lines
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _skipped(skipped: Any) -> str:
    told = [
        (str(each.get("file")), str(each.get("reason")))
        for each in (skipped if isinstance(skipped, list) else [])
        if isinstance(each, dict)
    ]
    rows = [f"<li><b>{html.escape(name)}</b> {html.escape(reason)}</li>" for name, reason in told]
    return f"<ul>{''.join(rows)}</ul>" if rows else "<p>None.</p>"
