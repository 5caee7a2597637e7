"""The measures of weakly supervised localization and of COCO, for runs and given detections."""

import math
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kgradcam import progress
from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.data import voc
from kgradcam.data.images import read_labels
from kgradcam.data.voc_folder import VocFolder
from kgradcam.errors import UserError
from kgradcam.evaluation.box_tables import BoxTables
from kgradcam.evaluation.results import Result
from kgradcam.evaluation.rows import MEAN, Row
from kgradcam.metrics import wsol
from kgradcam.metrics.bootstrap import with_mean
from kgradcam.metrics.coco import evaluate_coco
from kgradcam.metrics.pixel_precision import PixelCounts
from kgradcam.metrics.pointing_game import pointing_hit
from kgradcam.runs.dataset_folder import locate_dataset
from kgradcam.runs.drawn_boxes import each_drawn
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, RowsByClass

THRESHOLDS = tuple(i / 100 for i in range(100))
"""The candidate thresholds of MaxBoxAcc. The code of Choe et al. has 1,000."""

ByClass = Mapping[str, Mapping[str, float]]


def wsol_of_boxes(boxes: BoxTables, quiet: bool = True) -> Result:
    """Measures localization: by boxes; and for a run by its heatmaps and, if any, by masks.

    Difficult objects are left out.

    Args:
        boxes: The boxes of each option, of one smoothing radius.
        quiet: Shows no progress on stderr.

    Returns:
        A row for each class and option, with `CorLoc` and `GT-known Loc`. For runs also
        `MaxBoxAcc`, `at` (its threshold) and `MaxBoxAccV2`, with the boxes of `regions` whatever
        the rules and rows; and `pointing`. Where the dataset is a folder with masks, also `PxAP`
        and `mask IoU`.
    """
    truth, run = boxes.ground_truth, boxes.run
    names = dict(enumerate(truth.categories, start=1))
    of_maps: dict[str, dict[str, float]] = {name: {} for name in truth.categories}
    if run is not None:
        radius = next(radius for _, radius, _ in boxes.tables)
        accuracy = box_accuracy(run, radius or 0, quiet)
        of_maps = _of_heat(run)
        for i, name in names.items():
            best, threshold = accuracy.max_box_acc(i)
            in_all = accuracy.max_box_acc_v2(i)
            found = {"MaxBoxAcc": best, "at": threshold, "MaxBoxAccV2": in_all}
            of_maps[name] = {**found, **of_maps[name]}

    def measure(detections: Detections) -> ByClass:
        measured = {
            name: {
                "CorLoc": wsol.corloc(truth, detections, i),
                "GT-known Loc": wsol.gt_known_loc(truth, detections, i),
                **of_maps[name],
            }
            for i, name in names.items()
        }
        result = with_mean(measured)
        if MEAN in result and run is not None:  # thresholds of different classes have no mean
            result[MEAN] = {**result[MEAN], "at": math.nan}
        return result

    return _result("wsol", boxes, measure)


def box_accuracy(run: Run, radius: int = 0, quiet: bool = True) -> wsol.BoxAccuracy:
    """Draws a box around each connected region above each of `THRESHOLDS`, and counts the hits.

    A heatmap without heat has no box.

    Args:
        run: The run.
        radius: Smoothing radius in pixels; 0 as in Choe et al.
        quiet: Shows no progress on stderr.
    """
    options = BoxOptions("single-threshold", radius, score="constant")
    truth = run.ground_truth
    accuracy = wsol.BoxAccuracy(truth, THRESHOLDS)
    warm = (record for record in run.heatmaps() if np.ptp(record.heatmap) > 0)
    with progress.bar("regions", run.info.counts.heatmaps, "heatmaps", quiet) as advance:
        for record, found in each_drawn(warm, truth.images, THRESHOLDS, [radius], options, advance):
            accuracy.add(record.image_id, record.category_id, [boxes for boxes, _ in found])
    return accuracy


def coco_of_boxes(boxes: BoxTables, ignore_difficult: bool = False) -> Result:
    """Measures boxes with pycocotools.

    Args:
        boxes: The boxes of each option, of one smoothing radius.
        ignore_difficult: See `metrics.coco.evaluate_coco`.

    Returns:
        A row for each class and option, with `metrics.coco.MEASURES`.
    """
    truth = boxes.ground_truth
    return _result("coco", boxes, lambda table: evaluate_coco(truth, table, ignore_difficult))


def _result(protocol: str, boxes: BoxTables, measure: Callable[[Detections], ByClass]) -> Result:
    measured = {option: measure(table) for option, table in boxes.tables.items()}
    names = next(iter(measured.values()))
    rows = tuple(
        Row(name, by_class[name], boxes=origin, radius=radius, threshold=threshold)
        for name in names
        for (origin, radius, threshold), by_class in measured.items()
    )
    return Result(f"Protocol {protocol}, percent", {"name": protocol}, rows, boxes.source)


def _of_heat(run: Run) -> dict[str, dict[str, float]]:
    """The pointing game over images with a non-difficult object; PxAP and mask IoU."""
    truth = run.ground_truth
    images = {image.id: image for image in truth.images}
    masks, objects = _mask_folder(run), RowsByClass(truth)
    hits = {name: array("b") for name in truth.categories}
    pixels = {name: PixelCounts() for name in truth.categories}
    for record in run.heatmaps():
        image, name = images[record.image_id], truth.categories[record.category_id - 1]
        heatmap = normalize(record.heatmap, image.size)
        rows = objects(record.image_id, record.category_id)
        rows = rows[~truth.difficult[rows]]
        if len(rows):
            hits[name].append(pointing_hit(heatmap, truth.boxes[rows]))
        if masks is not None and name in voc.CLASSES:
            path = masks.mask_path(image.file_name)
            if path.is_file():
                pixels[name].add(heatmap, *voc.class_mask(read_labels(path), name))
    return {
        name: {
            "pointing": sum(each) / len(each) if each else math.nan,
            **(_of_pixels(pixels[name]) if masks is not None else {}),
        }
        for name, each in hits.items()
    }


def _of_pixels(counts: PixelCounts) -> dict[str, float]:
    return {"PxAP": counts.pixel_ap(), "mask IoU": counts.best_iou()[0]}


def _mask_folder(run: Run) -> VocFolder | None:
    """The folder of the run's dataset, if the dataset is a folder with masks."""
    try:
        folder = VocFolder(Path(locate_dataset(run)))
    except UserError:  # a dataset by name, or a folder that is gone
        return None
    return folder if (folder.root / "SegmentationClass").is_dir() else None
