"""The measures of weakly supervised localization and of COCO, for runs and given detections."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam import progress
from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.data import voc
from kgradcam.data.images import read_labels
from kgradcam.data.voc_folder import VocFolder
from kgradcam.evaluation.grid import describe
from kgradcam.evaluation.results import GIVEN, HEATMAP, MEAN, Result, Row
from kgradcam.metrics import wsol
from kgradcam.metrics.bootstrap import mean_over_classes
from kgradcam.metrics.coco import evaluate_coco
from kgradcam.metrics.pixel_precision import PixelCounts
from kgradcam.metrics.pointing_game import pointing_hit
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows

THRESHOLDS = tuple(i / 100 for i in range(100))
"""The candidate thresholds of MaxBoxAcc. The code of Choe et al. has 1,000."""

ByClass = dict[str, dict[str, float]]


def wsol_of_run(
    run: Run,
    thresholds: Sequence[float] | None = None,
    radius: int | None = None,
    rows: str = "all",
    box_options: BoxOptions | None = None,
    quiet: bool = True,
) -> Result:
    """Measures the localization of a run: boxes, heatmaps and, if there are some, masks.

    Difficult objects are left out.

    Args:
        run: The run.
        thresholds: Heat thresholds in [0, 1] of `CorLoc` and `GT-known Loc`. Default: the run's
            own, or the default ones of other box rules.
        radius: Smoothing radius in pixels. Default: the radius of the box options.
        rows: The boxes of each image and class that count; see `runs.tables.keep_rows`.
        box_options: All other options of boxes. Default: the run's own.
        quiet: Shows no progress on stderr.

    Returns:
        A row for each class and threshold, with `CorLoc`, `GT-known Loc`, `MaxBoxAcc`, `at` (its
        threshold), `MaxBoxAccV2`, `pointing`; and `PxAP` and `mask IoU` where the dataset is a
        folder with masks. The boxes of MaxBoxAcc and MaxBoxAccV2 are those of `regions`, whatever
        the rules and `rows`.
    """
    found, source = _boxes(run, thresholds, radius, rows, box_options, quiet)
    truth, of_heat = run.ground_truth, _of_heat(run)
    searched = regions(run, source["radius"], quiet)
    of_maps = {
        name: {**_of_maps(truth, searched, i), **of_heat[name]}
        for i, name in enumerate(truth.categories, start=1)
    }

    def measure(detections: Detections) -> ByClass:
        return _with_mean(
            {
                name: {**_of_boxes(truth, detections, i), **of_maps[name]}
                for i, name in enumerate(truth.categories, start=1)
            }
        )

    return _result("wsol", source, found, measure)


def regions(run: Run, radius: int = 0, quiet: bool = True) -> dict[float, Detections]:
    """Draws the boxes of MaxBoxAcc: around each connected region above each of `THRESHOLDS`.

    Args:
        run: The run.
        radius: Smoothing radius in pixels; 0 as in Choe et al.
        quiet: Shows no progress on stderr.

    Returns:
        Detections by threshold; a heatmap without heat has none.
    """
    options = BoxOptions("single-threshold", radius, score="constant")
    warm = (record for record in run.heatmaps() if np.ptp(record.heatmap) > 0)
    with progress.bar("regions", run.info.counts.heatmaps, "heatmaps", quiet) as advance:
        drawn = draw_boxes(warm, run.ground_truth.images, THRESHOLDS, [radius], options, advance)
    return {threshold: drawn[radius, threshold] for threshold in THRESHOLDS}


def wsol_of_detections(ground_truth: GroundTruth, detections: Detections) -> Result:
    """Measures the localization of given detections: `CorLoc` and `GT-known Loc`.

    The other measures of `wsol_of_run` need heatmaps.
    """
    measured = _with_mean(
        {
            name: _of_boxes(ground_truth, detections, i)
            for i, name in enumerate(ground_truth.categories, start=1)
        }
    )
    return _result_of_given("wsol", ground_truth, measured)


def coco_of_run(
    run: Run,
    thresholds: Sequence[float] | None = None,
    radius: int | None = None,
    rows: str = "all",
    box_options: BoxOptions | None = None,
    ignore_difficult: bool = False,
    quiet: bool = True,
) -> Result:
    """Measures a run with pycocotools.

    Args:
        run: The run; see `wsol_of_run` for the options of its boxes.
        thresholds: Heat thresholds in [0, 1].
        radius: Smoothing radius in pixels.
        rows: The boxes of each image and class that count.
        box_options: All other options of boxes.
        ignore_difficult: See `metrics.coco.evaluate_coco`.
        quiet: Shows no progress on stderr.

    Returns:
        A row for each class and threshold, with `metrics.coco.MEASURES`.
    """
    found, source = _boxes(run, thresholds, radius, rows, box_options, quiet)
    truth = run.ground_truth
    return _result(
        "coco", source, found, lambda boxes: evaluate_coco(truth, boxes, ignore_difficult)
    )


def coco_of_detections(
    ground_truth: GroundTruth, detections: Detections, ignore_difficult: bool = False
) -> Result:
    """Measures given detections with pycocotools; see `coco_of_run`."""
    measured = evaluate_coco(ground_truth, detections, ignore_difficult)
    return _result_of_given("coco", ground_truth, measured)


def _boxes(
    run: Run,
    thresholds: Sequence[float] | None,
    radius: int | None,
    rows: str,
    box_options: BoxOptions | None,
    quiet: bool,
) -> tuple[dict[float, Detections], dict[str, Any]]:
    """The boxes of a run by threshold, and the `source` of its result."""
    box_options = run.options if box_options is None else box_options
    thresholds = run.default_thresholds(box_options) if thresholds is None else thresholds
    radius = box_options.smooth_radius if radius is None else radius
    with progress.bar("boxes", run.info.counts.heatmaps, "heatmaps", quiet) as advance:
        drawn = run.detections(thresholds, [radius], box_options, advance)
    found = {threshold: keep_rows(drawn[radius, threshold], rows) for threshold in thresholds}
    source = {**describe(run), "rows": rows, "score": box_options.score, "radius": radius}
    return found, {**source, "thresholds": list(thresholds)}


def _result(
    protocol: str,
    source: dict[str, Any],
    found: Mapping[float, Detections],
    measure: Callable[[Detections], ByClass],
) -> Result:
    thresholds = source.pop("thresholds")
    measured = {threshold: measure(found[threshold]) for threshold in thresholds}
    rows = tuple(
        Row(
            name,
            measured[threshold][name],
            boxes=HEATMAP,
            radius=source["radius"],
            threshold=threshold,
        )
        for name in measured[thresholds[0]]
        for threshold in thresholds
    )
    return Result(f"Protocol {protocol}, percent", {"name": protocol}, rows, source)


def _result_of_given(protocol: str, ground_truth: GroundTruth, measured: ByClass) -> Result:
    rows = tuple(Row(name, measures, boxes=GIVEN) for name, measures in measured.items())
    source = {"images": len(ground_truth.images)}
    return Result(f"Protocol {protocol}, percent", {"name": protocol}, rows, source)


def _of_boxes(truth: GroundTruth, found: Detections, category_id: int) -> dict[str, float]:
    return {
        "CorLoc": wsol.corloc(truth, found, category_id),
        "GT-known Loc": wsol.gt_known_loc(truth, found, category_id),
    }


def _of_maps(
    truth: GroundTruth, searched: Mapping[float, Detections], category_id: int
) -> dict[str, float]:
    best, threshold = wsol.max_box_acc(truth, searched, category_id)
    return {
        "MaxBoxAcc": best,
        "at": threshold,
        "MaxBoxAccV2": wsol.max_box_acc_v2(truth, searched, category_id),
    }


def _of_heat(run: Run) -> dict[str, dict[str, float]]:
    """The pointing game over images with a non-difficult object; PxAP and mask IoU."""
    truth = run.ground_truth
    images = {image.id: image for image in truth.images}
    masks = _mask_folder(run)
    hits: dict[str, list[bool]] = {name: [] for name in truth.categories}
    pixels = {name: PixelCounts() for name in truth.categories}
    for record in run.heatmaps():
        image, name = images[record.image_id], truth.categories[record.category_id - 1]
        heatmap = normalize(record.heatmap, (image.width, image.height))
        rows = truth.image_ids == record.image_id
        rows &= (truth.category_ids == record.category_id) & ~truth.difficult
        if rows.any():
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
    path = Path(run.info.dataset.name)
    if not path.is_dir():
        return None
    folder = VocFolder(path)
    return folder if (folder.root / "SegmentationClass").is_dir() else None


def _with_mean(by_class: ByClass) -> ByClass:
    """Adds the mean over classes; the thresholds `at` of different classes have none."""
    if len(by_class) < 2:
        return by_class
    means = {
        key: math.nan
        if key == "at"
        else float(mean_over_classes([np.array(each[key]) for each in by_class.values()]))
        for key in next(iter(by_class.values()))
    }
    return {**by_class, MEAN: means}
