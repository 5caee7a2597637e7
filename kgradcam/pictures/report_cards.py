"""The cards of a report's gallery: image, heatmap, and the boxes at each step of the slider."""

import base64
import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from kgradcam import progress
from kgradcam.boxes.overlap import box_iou
from kgradcam.pictures.blending import OPACITY, heat_colors
from kgradcam.pictures.run_gallery import read_photographs
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth, Image, RowsByClass

STEPS = tuple(step / 50 for step in range(51))
"""The thresholds of the slider, beside those of the run and of the report's tables."""
_MAX_CELLS = 64  # of a heatmap along a side; finer ones are averaged
_SHADES = 64  # of heat; the eye sees no steps between them
_JPEG_QUALITY = 72


@dataclass(frozen=True)
class Card:
    """One heatmap, and how well its most confident box fits.

    Attributes:
        record: The heatmap.
        image: Its image.
        score: The confidence of that box; 0 without any box.
        iou: Its highest IoU with an object of the class that is not difficult; 0 without any box,
            `None` without any such object.
        doubt: The sum of 1 - score over its boxes; see `export.labels`.
    """

    record: ClassHeatmap
    image: Image
    score: float
    iou: float | None
    doubt: float

    @property
    def sort_key(self) -> tuple[float, float]:
        """Orders cards from the lowest IoU; of equals, the most confident first.

        Cards without an object that counts come last, the most doubtful first.
        """
        return (2.0, -self.doubt) if self.iou is None else (self.iou, -self.score)


def find_cards(run: Run, threshold: float, count: int) -> list[Card]:
    """Makes cards for the worst heatmaps of a run, the worst first.

    Args:
        run: The run.
        threshold: The heat threshold of the boxes, in [0, 1].
        count: The number of cards, at most.
    """
    truth = run.ground_truth
    (found,) = run.detections([threshold]).values()
    images = {image.id: image for image in truth.images}
    objects, predictions = RowsByClass(truth), RowsByClass(found)

    def card(record: ClassHeatmap) -> Card:
        key = record.image_id, record.category_id
        rows = predictions(*key)
        best = rows[found.scores[rows].argmax()][np.newaxis] if len(rows) else rows
        annotated = objects(*key)
        annotated = annotated[~truth.difficult[annotated]]
        (score,) = found.scores[best] if len(best) else (0.0,)
        ious = _best_ious(found.boxes[best], truth.boxes[annotated])
        (iou,) = ious if len(best) else (0.0 if len(annotated) else None,)
        doubt = float(np.sum(1 - found.scores[rows])) if len(rows) else 0.0
        # A copy, since a heatmap is a view of all values of its file.
        record = replace(record, heatmap=record.heatmap.copy())
        return Card(record, images[key[0]], float(score), iou, doubt)

    # The others are dropped while the heatmaps are read.
    return heapq.nsmallest(count, map(card, run.heatmaps()), key=lambda card: card.sort_key)


def describe_gallery(
    run: Run,
    cards: Sequence[Card],
    threshold: float,
    picture_size: int,
    data_dir: Path | None = None,
    quiet: bool = True,
    dataset: str | None = None,
) -> dict[str, Any]:
    """Computes everything that the page shows of its cards.

    Args:
        run: The run.
        cards: The cards, in their first order.
        threshold: The first threshold of the slider, in [0, 1].
        picture_size: The longer side of the pictures in pixels.
        data_dir: The folder of tensorflow-datasets.
        quiet: Shows no progress on stderr.
        dataset: The dataset, if it was moved. Default: that of the run.

    Returns:
        The data of `report.js`, ready for JSON: `thresholds` of the slider, its first `step`,
        `photos` as data URIs by file name, and `cards`. A card has `boxes`, distinct ones as
        `[xmin, ymin, xmax, ymax, score, IoU]`. Its `changes` are `[step, *indices]`: from that
        step on, those boxes are shown, best first.
    """
    thresholds = sorted({*STEPS, *run.thresholds, threshold})
    photos = {}
    if cards:  # without any, the dataset is not needed
        names = [card.image.file_name for card in cards]
        for name, image in read_photographs(run, names, data_dir, quiet, dataset):
            photos[name] = _thumbnail(image, picture_size)
    objects = RowsByClass(run.ground_truth)
    found = [(table, RowsByClass(table)) for table in _find_boxes(run, cards, thresholds, quiet)]
    return {
        "thresholds": thresholds,
        "step": thresholds.index(threshold),
        "photos": photos,
        "cards": [_describe_card(card, run.ground_truth, objects, found) for card in cards],
    }


def _find_boxes(
    run: Run, cards: Sequence[Card], thresholds: Sequence[float], quiet: bool
) -> list[Detections]:
    """The boxes of the cards at each threshold: of the run's files, and others drawn."""
    radius, records = run.options.smooth_radius, [card.record for card in cards]
    others = [each for each in thresholds if each not in run.thresholds]
    images = {card.image.id: card.image for card in cards}
    with progress.bar("boxes", len(records), "heatmaps", quiet) as advance:
        found = draw_boxes(records, images.values(), others, [radius], run.options, advance)
    for threshold in run.thresholds:
        (table,) = run.detections([threshold]).values()
        found[radius, threshold] = table.select(np.isin(table.image_ids, list(images)))
    return [found[radius, threshold] for threshold in thresholds]


def _describe_card(
    card: Card,
    truth: GroundTruth,
    objects: RowsByClass,
    found: Sequence[tuple[Detections, RowsByClass]],
) -> dict[str, Any]:
    record, image = card.record, card.image
    key = record.image_id, record.category_id
    annotated = objects(*key)
    easy = truth.boxes[annotated[~truth.difficult[annotated]]]
    numbers: dict[tuple[Any, ...], int] = {}  # of each distinct box
    changes: list[list[int]] = []
    for step, (table, rows_by_key) in enumerate(found):
        rows = sorted(rows_by_key(*key).tolist(), key=lambda row: -table.scores[row])
        # Whole pixels of the image are finer than those of its thumbnail.
        boxes = np.round(table.boxes[rows]).astype(int).tolist()
        values = zip(table.scores[rows], _best_ious(table.boxes[rows], easy), strict=True)
        shown = [
            numbers.setdefault((*box, _short(score), _short(iou)), len(numbers))
            for box, (score, iou) in zip(boxes, values, strict=True)
        ]
        if not changes or changes[-1][1:] != shown:
            changes.append([step, *shown])
    return {
        "file": image.file_name,
        "class": truth.categories[record.category_id - 1],
        "size": [image.width, image.height],
        "probability": _short(record.probability),
        "score": _short(card.score),
        "iou": _short(card.iou),
        "doubt": _short(card.doubt),
        "heat": _encode_heatmap(record.heatmap),
        "objects": truth.boxes[annotated].tolist(),
        "difficult": truth.difficult[annotated].tolist(),
        "boxes": [list(box) for box in numbers],
        "changes": changes,
    }


def _best_ious(
    boxes: npt.NDArray[np.float64], objects: npt.NDArray[np.float64]
) -> list[float | None]:
    """The highest IoU of each box with any object; `None` without objects."""
    if not len(objects):
        return [None] * len(boxes)
    return [float(each) for each in box_iou(boxes, objects).max(axis=1)]


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _thumbnail(picture: npt.NDArray[np.uint8], size: int) -> str:
    image = PIL.Image.fromarray(picture)
    image.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return data_uri("image/jpeg", buffer.getvalue())


def _encode_heatmap(heatmap: npt.NDArray[np.float32]) -> str:
    """A picture to lay over the image: the colours and opacities of `drawing.overlay`."""
    heat = heatmap - heatmap.min()
    heat /= heat.max() or 1
    height, width = heat.shape
    if max(height, width) > _MAX_CELLS:
        scale = _MAX_CELLS / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        heat = cv2.resize(heat, size, interpolation=cv2.INTER_AREA)
    shades = np.linspace(0, 1, _SHADES)
    image = PIL.Image.fromarray(np.round(heat * (_SHADES - 1)).astype(np.uint8))
    image.putpalette(np.round(heat_colors(shades)).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    opacities = np.round(255 * OPACITY * shades).astype(np.uint8).tobytes()
    image.save(buffer, "PNG", optimize=True, transparency=opacities)
    return data_uri("image/png", buffer.getvalue())


def data_uri(kind: str, data: bytes) -> str:
    """Returns the data URI of a file of a media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
