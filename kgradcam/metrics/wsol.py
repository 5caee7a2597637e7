"""Measures of weakly supervised localization: the share of images with a box that hits an object.

An image counts for a class if it shows a non-difficult object of the class. A box hits if its IoU
with any such object reaches the threshold.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kgradcam.metrics.average_precision import pair_boxes
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows

MAX_BOX_IOUS = (0.3, 0.5, 0.7)


def best_overlaps(
    ground_truth: GroundTruth, detections: Detections, category_id: int
) -> npt.NDArray[np.float64]:
    """Returns the highest IoU of any box with any object, for each image that counts.

    Args:
        ground_truth: The annotated boxes.
        detections: The predicted boxes.
        category_id: The class.

    Returns:
        float64 `[images]` in the order of their ids; 0 without a box.
    """
    objects = (ground_truth.category_ids == category_id) & ~ground_truth.difficult
    boxes = np.flatnonzero(detections.category_ids == category_id)
    pairs = pair_boxes(ground_truth, objects, detections, boxes)
    image_ids = np.unique(ground_truth.image_ids[objects])
    best = np.zeros(len(image_ids))
    places = np.searchsorted(image_ids, ground_truth.image_ids[pairs.objects])
    np.maximum.at(best, places, pairs.iou)
    return best


def _share(overlaps: npt.NDArray[np.float64], iou: float) -> float:
    return float((overlaps >= iou).mean()) if len(overlaps) else float("nan")


def corloc(
    ground_truth: GroundTruth, detections: Detections, category_id: int, iou: float = 0.5
) -> float:
    """Returns correct localization (Deselaers et al., 2012): hits of the most confident box.

    Returns:
        The share of images in [0, 1]; NaN if none counts.
    """
    top = keep_rows(detections, "top")
    return _share(best_overlaps(ground_truth, top, category_id), iou)


def gt_known_loc(
    ground_truth: GroundTruth, detections: Detections, category_id: int, iou: float = 0.5
) -> float:
    """Returns GT-known localization accuracy: hits of the largest box.

    Returns:
        The share of images in [0, 1]; NaN if none counts.
    """
    largest = keep_rows(detections, "largest")
    return _share(best_overlaps(ground_truth, largest, category_id), iou)


def max_box_acc(
    ground_truth: GroundTruth, by_threshold: Mapping[float, Detections], category_id: int
) -> tuple[float, float]:
    """Returns MaxBoxAcc (Choe et al., CVPR 2020): GT-known localization at the best threshold.

    Args:
        ground_truth: The annotated boxes.
        by_threshold: For each heat threshold the boxes of all regions above it; see
            `evaluation.wsol_and_coco.regions`.
        category_id: The class.

    Returns:
        The accuracy in [0, 1], and its threshold; the lowest of equals.
    """
    found = {
        threshold: gt_known_loc(ground_truth, detections, category_id)
        for threshold, detections in sorted(by_threshold.items())
    }
    best = max(found, key=lambda threshold: found[threshold])
    return found[best], best


def max_box_acc_v2(
    ground_truth: GroundTruth,
    by_threshold: Mapping[float, Detections],
    category_id: int,
    ious: Sequence[float] = MAX_BOX_IOUS,
) -> float:
    """Returns MaxBoxAccV2 (Choe et al., TPAMI 2022): hits of any box, the mean over three IoU.

    Args:
        ground_truth: The annotated boxes.
        by_threshold: The predicted boxes for each heat threshold.
        category_id: The class.
        ious: IoU thresholds, each taken at its best heat threshold.

    Returns:
        The accuracy in [0, 1]; NaN if no image counts.
    """
    overlaps = [
        best_overlaps(ground_truth, detections, category_id) for detections in by_threshold.values()
    ]
    return float(np.mean([max(_share(each, iou) for each in overlaps) for iou in ious]))
