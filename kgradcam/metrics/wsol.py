"""Measures of weakly supervised localization: the share of images with a box that hits an object.

An image counts for a class if it shows a non-difficult object of the class. A box hits if its IoU
with any such object reaches the threshold.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes, box_iou
from kgradcam.metrics.average_precision import pair_boxes
from kgradcam.runs.tables import Detections, GroundTruth, RowsByClass, keep_rows

MAX_BOX_IOUS = (0.3, 0.5, 0.7)
_IOU = 0.5


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
    objects = _counting(ground_truth, category_id)
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
    ground_truth: GroundTruth, detections: Detections, category_id: int, iou: float = _IOU
) -> float:
    """Returns correct localization (Deselaers et al., 2012): hits of the most confident box.

    Returns:
        The share of images in [0, 1]; NaN if none counts.
    """
    top = keep_rows(detections.select(detections.category_ids == category_id), "top")
    return _share(best_overlaps(ground_truth, top, category_id), iou)


def gt_known_loc(
    ground_truth: GroundTruth, detections: Detections, category_id: int, iou: float = _IOU
) -> float:
    """Returns GT-known localization accuracy: hits of the largest box.

    Returns:
        The share of images in [0, 1]; NaN if none counts.
    """
    largest = keep_rows(detections.select(detections.category_ids == category_id), "largest")
    return _share(best_overlaps(ground_truth, largest, category_id), iou)


class BoxAccuracy:
    """MaxBoxAcc and MaxBoxAccV2 of any number of heatmaps, which are added one after another.

    Args:
        ground_truth: The annotated boxes.
        thresholds: Heat thresholds, in ascending order.

    Example:
        >>> from kgradcam.runs.tables import Image
        >>> box = np.array([[0.0, 0.0, 8.0, 8.0]])
        >>> one = np.array([1])
        >>> images = (Image(1, "a.jpg", 9, 9),)
        >>> truth = GroundTruth(images, ("cat",), one, one, box, np.array([False]))
        >>> accuracy = BoxAccuracy(truth, [0.2, 0.5])
        >>> accuracy.add(1, 1, [box / 2, box])
        >>> accuracy.max_box_acc(1), accuracy.max_box_acc_v2(1)
        ((1.0, 0.5), 1.0)
    """

    def __init__(self, ground_truth: GroundTruth, thresholds: Sequence[float]) -> None:
        self._truth, self._thresholds = ground_truth, thresholds
        self._rows = RowsByClass(ground_truth)
        shape = (len(ground_truth.categories) + 1, len(thresholds))
        self._largest = np.zeros(shape, np.int64)
        self._any = np.zeros((len(MAX_BOX_IOUS), *shape), np.int64)

    def add(self, image_id: int, category_id: int, boxes: Sequence[Boxes]) -> None:
        """Adds the boxes of an image and class.

        Args:
            image_id: The image.
            category_id: The class.
            boxes: For each threshold the boxes of all regions above it, float64 `[boxes, 4]`.
        """
        rows = self._rows(image_id, category_id)
        objects = self._truth.boxes[rows[~self._truth.difficult[rows]]]
        if not len(objects):
            return
        every = np.concatenate(boxes)
        places = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
        overlaps = box_iou(every, objects).max(axis=1)
        order = np.lexsort((-(every[:, 2:] - every[:, :2]).prod(axis=1), places))
        found, firsts = np.unique(places[order], return_index=True)
        self._largest[category_id, found] += overlaps[order[firsts]] >= _IOU
        best = np.zeros(len(boxes))
        np.maximum.at(best, places, overlaps)
        self._any[:, category_id] += best >= np.array(MAX_BOX_IOUS)[:, np.newaxis]

    def max_box_acc(self, category_id: int) -> tuple[float, float]:
        """Returns MaxBoxAcc (Choe et al., CVPR 2020): GT-known localization at the best threshold.

        Returns:
            The accuracy in [0, 1], NaN if no image counts; and its threshold, the lowest of equals.
        """
        hits = self._largest[category_id]
        return self._share(int(hits.max()), category_id), self._thresholds[int(hits.argmax())]

    def max_box_acc_v2(self, category_id: int) -> float:
        """Returns MaxBoxAccV2 (Choe et al., TPAMI 2022): hits of any box, the mean over three IoU.

        Each IoU is taken at its best heat threshold.

        Returns:
            The accuracy in [0, 1]; NaN if no image counts.
        """
        best = self._any[:, category_id].max(axis=1)
        return float(np.mean([self._share(int(hits), category_id) for hits in best]))

    def _share(self, hits: int, category_id: int) -> float:
        count = len(np.unique(self._truth.image_ids[_counting(self._truth, category_id)]))
        return hits / count if count else float("nan")


def _counting(ground_truth: GroundTruth, category_id: int) -> npt.NDArray[np.bool_]:
    return (ground_truth.category_ids == category_id) & ~ground_truth.difficult
