"""Average precision and recall of boxes, by named protocols.

What the protocols share: detections of a class are taken in the order of their confidence, highest
first, ties in the order of the table. Each is compared with the ground truth box that it overlaps
most, of all those of its class in its image, and with no other. It is true if that overlap suffices
and no detection before it has taken the box, else false.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError, did_you_mean
from kgradcam.records import Boxes, Detections, GroundTruth

AveragePrecision = Literal["area", "11-point"]


@dataclass(frozen=True)
class Protocol:
    """The rules in which evaluations differ.

    Attributes:
        name: Its name.
        ap: `"area"`, under the precision envelope at all points (VOC from 2010 on), or
            `"11-point"`, the mean of the envelope at recalls 0, 0.1, ..., 1 (VOC2007).
        ignore_difficult: Whether difficult objects do not count, and detections of them neither;
            else they are ordinary.
        strict: Whether the overlap must exceed the threshold, or may equal it.
        mixed_pixels: Whether overlaps are computed as the seed did: ground truth in VOC's integers,
            which count from 1, against half-open detections, adding 1 to every width and height.
            Else both are half-open, which on whole pixels is the devkit's "+1" exactly.
    """

    name: str
    ap: AveragePrecision
    ignore_difficult: bool
    strict: bool
    mixed_pixels: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("seed", ap="area", ignore_difficult=False, strict=True, mixed_pixels=True),
        Protocol("voc2007", ap="11-point", ignore_difficult=True, strict=False),
        Protocol("voc2010", ap="area", ignore_difficult=True, strict=False),
    )
}


def find_protocol(name: str) -> Protocol:
    """Returns a protocol by name.

    Raises:
        UserError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise UserError(
            f"protocol={name!r} is none of {', '.join(PROTOCOLS)}.{did_you_mean(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]


@dataclass(frozen=True)
class ClassResult:
    """How well the boxes of one class fit, at one IoU.

    Attributes:
        class_name: The class.
        iou: The intersection over union at which a box counts as right.
        ap: Average precision, 0 to 1; NaN without ground truth.
        recall: Share of the ground truth found, 0 to 1; NaN without ground truth.
        detections: How many boxes of the class there are.
        ground_truths: How many objects of the class count.
        hits: bool `[ranked]`: whether each detection that counts is true, best first. Precision and
            recall after the first n of them are `hits[:n].mean()` and
            `hits[:n].sum() / ground_truths`.
    """

    class_name: str
    iou: float
    ap: float
    recall: float
    detections: int
    ground_truths: int
    hits: npt.NDArray[np.bool_] = field(repr=False)


def box_iou(a: Boxes, b: Boxes, inclusive: bool = False) -> npt.NDArray[np.float64]:
    """Returns the intersection over union of every pair of boxes.

    Args:
        a: `[n, 4]`, xyxy.
        b: `[m, 4]`, xyxy.
        inclusive: Adds 1 to every width and height, for boxes that include their last pixel.

    Returns:
        float64 `[n, m]` in [0, 1]; 0 where both boxes are empty.

    Example:
        >>> box_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]]))
        array([[0.33333333]])
    """
    extra = 1.0 if inclusive else 0.0
    lower = np.maximum(a[:, None, :2], b[None, :, :2])
    upper = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(upper - lower + extra, 0, None).prod(axis=2)
    area_a = (a[:, 2:] - a[:, :2] + extra).prod(axis=1)
    area_b = (b[:, 2:] - b[:, :2] + extra).prod(axis=1)
    union = area_a[:, None] + area_b[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def average_precision(
    hits: npt.NDArray[np.bool_], ground_truths: int, ap: AveragePrecision
) -> float:
    """Returns the average precision of ranked detections.

    Args:
        hits: bool `[detections]`, best first: whether each is true.
        ground_truths: How many objects there are to find.
        ap: See `Protocol`. A recall of exactly k/10 reaches the k-th point: compared as whole
            numbers, where the devkit's floating point misses 3/10, 6/10 and 7/10.

    Returns:
        0 to 1; NaN without ground truth.

    Example:
        >>> average_precision(np.array([True, False, True]), 2, "area")
        0.8333333333333333
    """
    if ground_truths == 0:
        return float("nan")
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    # The envelope: the best precision at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if ap == "area":
        return float(envelope[hits].sum() / ground_truths)
    points = [envelope[10 * found >= k * ground_truths] for k in range(11)]
    return float(sum(reached[0] for reached in points if len(reached)) / 11)


def evaluate(
    ground_truth: GroundTruth,
    detections: Detections,
    protocol: Protocol,
    iou_thresholds: Sequence[float],
) -> list[ClassResult]:
    """Scores detections class by class.

    Args:
        ground_truth: The annotated boxes.
        detections: The predicted ones.
        protocol: The rules; see `PROTOCOLS`.
        iou_thresholds: The intersections over union at which a box counts as right.

    Returns:
        A result for each class and threshold, in the order of both.
    """
    results = []
    for category_id, name in enumerate(ground_truth.categories, start=1):
        truth = ground_truth.category_ids == category_id
        found = np.flatnonzero(detections.category_ids == category_id)
        ranked = found[np.argsort(-detections.scores[found], kind="stable")]
        overlap, match = _best_matches(ground_truth, truth, detections, ranked, protocol)
        counted = truth & ~(ground_truth.difficult & protocol.ignore_difficult)
        for iou in iou_thresholds:
            reached = (overlap > iou) if protocol.strict else (overlap >= iou)
            reached &= overlap > 0  # boxes apart never match, not even at a threshold of 0
            # Detections of an ignored object are neither true nor false.
            ignored = reached.copy()
            ignored[reached] = ~counted[match[reached]]
            first = np.zeros(len(ranked), bool)
            _, firsts = np.unique(np.where(reached, match, -1), return_index=True)
            first[firsts] = True
            hits = (reached & first)[~ignored]
            total = int(counted.sum())
            results.append(
                ClassResult(
                    class_name=name,
                    iou=float(iou),
                    ap=average_precision(hits, total, protocol.ap),
                    recall=float(hits.sum() / total) if total else float("nan"),
                    detections=len(found),
                    ground_truths=total,
                    hits=hits,
                )
            )
    return results


def _best_matches(
    ground_truth: GroundTruth,
    truth: npt.NDArray[np.bool_],
    detections: Detections,
    ranked: npt.NDArray[np.int64],
    protocol: Protocol,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The highest overlap of each ranked detection, and with which box; -1 where there is none."""
    overlap = np.zeros(len(ranked))
    match = np.full(len(ranked), -1, np.int64)
    truth_of = _rows_by_image(ground_truth.image_ids, np.flatnonzero(truth))
    shift = np.array([1.0, 1.0, 0.0, 0.0]) if protocol.mixed_pixels else 0.0
    for image_id, places in _rows_by_image(
        detections.image_ids[ranked], np.arange(len(ranked))
    ).items():
        rows = truth_of.get(image_id)
        if rows is None:
            continue
        overlaps = box_iou(
            detections.boxes[ranked[places]],
            ground_truth.boxes[rows] + shift,
            protocol.mixed_pixels,
        )
        best = overlaps.argmax(axis=1)
        overlap[places] = overlaps[np.arange(len(places)), best]
        match[places] = rows[best]
    return overlap, match


def _rows_by_image(
    image_ids: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> dict[int, npt.NDArray[np.int64]]:
    """Groups rows of a table by image, their order kept."""
    order = rows[np.argsort(image_ids[rows], kind="stable")]
    ids, starts = np.unique(image_ids[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True)) if len(rows) else {}
