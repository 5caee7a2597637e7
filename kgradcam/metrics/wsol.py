"""Measures of weakly supervised localization: is there a box in the right place, image by image?

An image counts for a class if it has an object of it that is not difficult. A box hits if its
overlap with any such object suffices.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import box_iou
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows

MAX_BOX_IOUS = (0.3, 0.5, 0.7)


def best_overlaps(
    ground_truth: GroundTruth, detections: Detections, category_id: int
) -> npt.NDArray[np.float64]:
    """Returns for each image that counts the highest overlap of any box with any object.

    Args:
        ground_truth: The annotated boxes.
        detections: The predicted ones.
        category_id: The class.

    Returns:
        `[images]`, in the order of their ids; 0 where there is no box.
    """
    objects = (ground_truth.category_ids == category_id) & ~ground_truth.difficult
    boxes = detections.category_ids == category_id
    image_ids = np.unique(ground_truth.image_ids[objects])
    best = np.zeros(len(image_ids))
    for i, image_id in enumerate(image_ids):
        found = detections.boxes[boxes & (detections.image_ids == image_id)]
        if len(found):
            truth = ground_truth.boxes[objects & (ground_truth.image_ids == image_id)]
            best[i] = box_iou(found, truth).max()
    return best


def _share(overlaps: npt.NDArray[np.float64], iou: float) -> float:
    return float((overlaps >= iou).mean()) if len(overlaps) else float("nan")


def corloc(
    ground_truth: GroundTruth, detections: Detections, category_id: int, iou: float = 0.5
) -> float:
    """Correct localization (Deselaers et al., 2012): does the most confident box hit?

    Returns:
        The share of the images that count, 0 to 1; NaN if there are none.
    """
    top = keep_rows(detections, "top")
    return _share(best_overlaps(ground_truth, top, category_id), iou)


def gt_known_loc(
    ground_truth: GroundTruth, detections: Detections, category_id: int, iou: float = 0.5
) -> float:
    """GT-known localization accuracy: does the largest box hit?

    Returns:
        The share of the images that count, 0 to 1; NaN if there are none.
    """
    largest = keep_rows(detections, "largest")
    return _share(best_overlaps(ground_truth, largest, category_id), iou)


def max_box_acc(
    ground_truth: GroundTruth, by_threshold: Mapping[float, Detections], category_id: int
) -> tuple[float, float]:
    """MaxBoxAcc (Choe et al., CVPR 2020): GT-known localization at the best of many thresholds.

    Args:
        ground_truth: The annotated boxes.
        by_threshold: The predicted ones for each heat threshold.
        category_id: The class.

    Returns:
        The accuracy, 0 to 1, and the threshold that has it, the lowest of equals.
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
    """MaxBoxAccV2 (Choe et al., TPAMI 2022): any box may hit; the mean over three overlaps.

    Args:
        ground_truth: The annotated boxes.
        by_threshold: The predicted ones for each heat threshold.
        category_id: The class.
        ious: The overlaps; for each the best threshold is taken.

    Returns:
        0 to 1; NaN if no image counts.
    """
    overlaps = [
        best_overlaps(ground_truth, detections, category_id) for detections in by_threshold.values()
    ]
    return float(np.mean([max(_share(each, iou) for each in overlaps) for iou in ious]))
