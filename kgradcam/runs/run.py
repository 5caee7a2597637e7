"""A run folder: what `kgradcam detect` found, in files that others can read.

==========================  =======================================================================
`run.json`                  the effective configuration, versions, model, layer, dataset and counts
`ground_truth.json`         COCO ground truth of the images and classes of the run
`detections-0.25.json`      COCO results for one threshold
`heatmaps/00000.npz`        raw heatmaps at the layer's own resolution, with their scores
==========================  =======================================================================
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kgradcam.boxes.find import boxes_by_option
from kgradcam.boxes.options import DEFAULT_THRESHOLDS, BoxOptions
from kgradcam.boxes.overlap import Boxes
from kgradcam.data.images import check_size
from kgradcam.errors import UsageError, UserError
from kgradcam.progress import Advance, ignore
from kgradcam.runs.coco_files import read_detections, read_ground_truth
from kgradcam.runs.heatmap_files import ClassHeatmap, read_heatmaps
from kgradcam.runs.tables import Detections, GroundTruth, Image, join

SCHEMA = 3
_BLOCK = 512
_SAID = {"dataset": ("name", "split"), "model": ("name", "layer"), "counts": ("heatmaps",)}
_WIDEST_FILTER = 10_000


class Run:
    """A finished run.

    Its files may come from anybody: nothing in them is run, none leads out of the folder, and
    reading them takes memory in proportion to their size.

    Args:
        folder: What `kgradcam detect` wrote.

    Attributes:
        info: The content of `run.json`.
        options: How its heatmaps became boxes.
        thresholds: The thresholds whose detections are stored.

    Raises:
        UserError: The folder is no run, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.info: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
            if self.info["schema"] != SCHEMA:
                raise UserError(
                    f"{folder}/run.json has the schema {self.info['schema']!r}; this version reads "
                    f"{SCHEMA}. Make the run anew with `kgradcam detect`, or install the version "
                    "of kgradcam that run.json names."
                )
            self.options = BoxOptions(**self.info["boxes"])
            self.thresholds = [float(threshold) for threshold in self.info["thresholds"]]
            _check(self.info, self.options, self.thresholds)
        except FileNotFoundError:
            raise UserError(
                f"{folder} is no run: it holds no run.json. `kgradcam detect --out {folder}` "
                "makes one."
            ) from None
        except UsageError as error:  # of options, that here nobody has typed
            raise UserError(f"{folder}/run.json cannot be read: {error}") from error
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise UserError(f"{folder}/run.json cannot be read: {error!r}") from error

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """The annotated boxes of the run's images and classes."""
        path = self.folder / "ground_truth.json"
        truth = read_ground_truth(path)
        for image in truth.images:
            check_size(f"{path}: {image.file_name!r}", image.width, image.height)
        return truth

    def heatmaps(self) -> Iterator[ClassHeatmap]:
        """Yields every heatmap of the run, in the order in which the model saw the images."""
        image_ids = {image.id for image in self.ground_truth.images}
        for path in sorted((self.folder / "heatmaps").glob("*.npz")):
            for record in read_heatmaps(path):
                if record.image_id not in image_ids or not 1 <= record.category_id <= len(
                    self.ground_truth.categories
                ):
                    raise UserError(f"{path} has a heatmap of an image or class that is not there.")
                yield record

    def default_thresholds(self, options: BoxOptions) -> list[float]:
        """Returns the run's own thresholds, or those that other rules have by default."""
        own = options.rules == self.options.rules
        return self.thresholds if own else list(DEFAULT_THRESHOLDS[options.rules])

    def detections(
        self,
        thresholds: Sequence[float],
        radii: Sequence[int] | None = None,
        options: BoxOptions | None = None,
        advance: Advance = ignore,
    ) -> dict[tuple[int, float], Detections]:
        """Returns the boxes for some options: stored ones, or drawn from the heatmaps.

        Args:
            thresholds: Any heat thresholds in [0, 1].
            radii: Widths of the smoothing filter in pixels. Default: that of the options.
            options: How heatmaps become boxes. Default: the run's own.
            advance: Called with the number of heatmaps done, if any are needed.

        Returns:
            By smoothing radius and threshold.
        """
        options = self.options if options is None else options
        radii = [options.smooth_radius] if radii is None else radii
        own = self.options.smooth_radius
        stored = options == self.options and set(radii) == {own}
        if stored and set(thresholds) <= set(self.thresholds):
            return {
                (own, threshold): read_detections(
                    self.folder / detections_name(threshold), self.ground_truth
                )
                for threshold in thresholds
            }
        images = self.ground_truth.images
        return draw_boxes(self.heatmaps(), images, thresholds, radii, options, advance)


def draw_boxes(
    records: Iterable[ClassHeatmap],
    images: Iterable[Image],
    thresholds: Sequence[float],
    radii: Sequence[int],
    box_options: BoxOptions,
    advance: Advance = ignore,
) -> dict[tuple[int, float], Detections]:
    """Draws the boxes of heatmaps, all options in one pass.

    Args:
        records: The heatmaps.
        images: Those that they are of.
        thresholds: Heat thresholds in [0, 1].
        radii: Widths of the smoothing filter in pixels.
        box_options: How heatmaps become boxes, but for these two.
        advance: Called with the number of heatmaps done.

    Returns:
        By smoothing radius and threshold.
    """
    sizes = {image.id: (image.width, image.height) for image in images}
    options = [(radius, threshold) for radius in radii for threshold in thresholds]
    rows: dict[tuple[int, float], list[_Row]] = {option: [] for option in options}

    def draw(record: ClassHeatmap) -> list[_Row]:
        found = boxes_by_option(
            record.heatmap,
            sizes[record.image_id],
            record.probability,
            thresholds,
            radii,
            box_options,
        )
        return [(record.image_id, record.category_id, boxes, scores) for boxes, scores in found]

    waiting = iter(records)
    with ThreadPoolExecutor(os.cpu_count()) as pool, _single_threaded_opencv():
        # A block at a time, so that the maps of a long run are never all in memory.
        while block := list(islice(waiting, _BLOCK)):
            for found in pool.map(draw, block):
                for option, row in zip(options, found, strict=True):
                    rows[option].append(row)
                advance(1)
    return {option: _table(rows[option]) for option in options}


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """Threads of OpenCV's own beside a pool of them spend as much time again on waiting."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


_Row = tuple[int, int, Boxes, Boxes]


def _table(rows: list[_Row]) -> Detections:
    """Joins the boxes of many heatmaps, ordered by image and class."""
    counts = [len(boxes) for _, _, boxes, _ in rows]
    ids = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    image_ids, category_ids = np.repeat(ids, counts, axis=0).T
    found = Detections(
        image_ids=image_ids,
        category_ids=category_ids,
        boxes=np.concatenate([np.zeros((0, 4)), *(boxes for _, _, boxes, _ in rows)]),
        scores=np.concatenate([np.zeros(0), *(scores for _, _, _, scores in rows)]),
    )
    return join([found])


def _check(info: dict[str, Any], options: BoxOptions, thresholds: Sequence[float]) -> None:
    """Raises what `Run` tells of a run.json that lacks something or has it of another type."""
    for part, names in _SAID.items():
        for name in names:
            if not isinstance(info[part][name], str | int | list):
                raise TypeError(f"{part}.{name}={info[part][name]!r}")
    radius = options.smooth_radius
    if type(radius) is not int or not 0 <= radius <= _WIDEST_FILTER:
        raise ValueError(f"smooth_radius={radius!r}")
    for name in ("iou_threshold", "min_relative_score"):
        if not 0 <= float(getattr(options, name)) <= 1:
            raise ValueError(f"{name}={getattr(options, name)!r}")
    if not thresholds or not all(0 <= threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds={thresholds!r}")


def detections_name(threshold: float) -> str:
    """Returns the name of the file with the detections for a threshold."""
    return f"detections-{threshold!r}.json"
