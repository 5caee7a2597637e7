"""Draws the boxes of many heatmaps, for many options, on all cores."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np

from kgradcam.boxes.find import boxes_by_option
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.overlap import Boxes
from kgradcam.boxes.scores import Scores
from kgradcam.progress import Advance, ignore
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.tables import Detections, Image, join, sizes_by_id

_BLOCK = 512

_Row = tuple[int, int, Boxes, Scores]
"""Image id, category id, and the boxes and scores of one heatmap."""


def draw_boxes(
    heatmaps: Iterable[ClassHeatmap],
    images: Iterable[Image],
    thresholds: Sequence[float],
    radii: Sequence[int],
    options: BoxOptions,
    advance: Advance = ignore,
) -> dict[tuple[int, float], Detections]:
    """Draws the boxes of heatmaps for every pair of smoothing radius and threshold, in one pass.

    Args:
        heatmaps: Any number of heatmaps; they are never all in memory, unlike their boxes.
        images: Their images.
        thresholds: Heat thresholds in [0, 1].
        radii: Smoothing radii in pixels; they replace `options.smooth_radius`.
        options: How a heatmap becomes boxes.
        advance: Called with 1 after each heatmap.

    Returns:
        Detections by smoothing radius and threshold, ordered by image and class.
    """
    pairs = [(radius, threshold) for radius in radii for threshold in thresholds]
    tables: dict[tuple[int, float], list[Detections]] = {pair: [] for pair in pairs}
    found = each_drawn(heatmaps, images, thresholds, radii, options, advance)
    while block := list(islice(found, _BLOCK)):
        for i, pair in enumerate(pairs):
            rows = [(record.image_id, record.category_id, *boxes[i]) for record, boxes in block]
            tables[pair].append(_to_table(rows))
    return {pair: join(tables.pop(pair)) for pair in pairs}


def each_drawn(
    heatmaps: Iterable[ClassHeatmap],
    images: Iterable[Image],
    thresholds: Sequence[float],
    radii: Sequence[int],
    options: BoxOptions,
    advance: Advance = ignore,
) -> Iterator[tuple[ClassHeatmap, list[tuple[Boxes, Scores]]]]:
    """Yields each heatmap with its boxes and scores, for each radius and in it each threshold.

    Its arguments are those of `draw_boxes`. The boxes of some hundred heatmaps are in memory.
    """
    sizes = sizes_by_id(images)

    def draw(record: ClassHeatmap) -> tuple[ClassHeatmap, list[tuple[Boxes, Scores]]]:
        size = sizes[record.image_id]
        return record, boxes_by_option(
            record.heatmap, size, record.probability, thresholds, radii, options
        )

    remaining = iter(heatmaps)
    with ThreadPoolExecutor(os.cpu_count()) as pool, _SINGLE_THREADED_OPENCV:
        # In blocks, so that threads do not run ahead of a slow reader.
        while block := list(islice(remaining, _BLOCK)):
            for found in pool.map(draw, block):
                advance(1)
                yield found


class _SingleThreadedOpenCV:
    """Turns off OpenCV's own threads, which compete with the pool and double the time.

    The setting belongs to the process: the last of the blocks that overlap restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = self._threads = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._blocks:
                self._threads = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._blocks += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                cv2.setNumThreads(self._threads)


_SINGLE_THREADED_OPENCV = _SingleThreadedOpenCV()


def _to_table(rows: list[_Row]) -> Detections:
    counts = [len(boxes) for _, _, boxes, _ in rows]
    ids = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    image_ids, category_ids = np.repeat(ids, counts, axis=0).T
    return Detections(
        image_ids=image_ids,
        category_ids=category_ids,
        boxes=np.concatenate([np.zeros((0, 4)), *(boxes for _, _, boxes, _ in rows)]),
        scores=np.concatenate([np.zeros(0), *(scores for _, _, _, scores in rows)]),
    )
