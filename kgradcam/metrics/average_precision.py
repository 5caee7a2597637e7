"""Average precision and recall of boxes.

Detections of a class are ranked by confidence, highest first; ties keep the order of the table. A
detection is true if its best overlap with an object of its class reaches the IoU threshold, and no
detection before it matched that object. All others are false. Precision is the share of true
detections among the first n, recall the share of the objects that they found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import paired_iou
from kgradcam.metrics.protocol import AveragePrecision, Protocol
from kgradcam.runs.tables import Detections, GroundTruth

_BLOCK = 2**18  # pairs whose corners are in memory at once


@dataclass(frozen=True)
class ClassResult:
    """The measures of one class at one IoU.

    Attributes:
        class_name: The class.
        iou: Intersection over union from which a box counts as correct.
        ap: Average precision in [0, 1]; NaN without ground truth.
        recall: Share of the objects found, in [0, 1]; NaN without ground truth.
        detections: The number of boxes of the class.
        ground_truths: The number of objects that count.
        hits: bool `[ranked]`: whether each detection that counts is true, by rank. Precision and
            recall of the first n are `hits[:n].mean()` and `hits[:n].sum() / ground_truths`.
        hit_images: int64 `[ranked]`, the image id of each.
        truth_images: int64 `[ground_truths]`, the image id of each object that counts.
        scores: float64 `[ranked]`, the score of each.
    """

    class_name: str
    iou: float
    ap: float
    recall: float
    detections: int
    ground_truths: int
    hits: npt.NDArray[np.bool_] = field(repr=False)
    hit_images: npt.NDArray[np.int64] = field(repr=False)
    truth_images: npt.NDArray[np.int64] = field(repr=False)
    scores: npt.NDArray[np.float64] = field(repr=False)


def average_precision(
    hits: npt.NDArray[np.bool_], ground_truths: int, ap: AveragePrecision
) -> float:
    """Returns the average precision of ranked detections.

    Args:
        hits: bool `[detections]`: whether each is true, by rank.
        ground_truths: The number of objects to find.
        ap: See `Protocol.ap`. A recall of exactly k/10 reaches the k-th point, since whole numbers
            are compared; with floats the devkit misses some of them.

    Returns:
        A value in [0, 1]; NaN without ground truth.

    Example:
        >>> average_precision(np.array([True, False, True]), 2, "area")
        0.8333333333333333
    """
    weights = np.ones((1, len(hits)), np.int64)
    return float(weighted_average_precision(hits, weights, np.array([ground_truths]), ap)[0])


def weighted_average_precision(
    hits: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.integer[Any]],
    ground_truths: npt.NDArray[np.int64],
    ap: AveragePrecision,
) -> npt.NDArray[np.float64]:
    """Returns the average precision of each bootstrap sample of ranked detections.

    Args:
        hits: bool `[detections]`: whether each is true, by rank.
        weights: Signed integers `[samples, detections]`: the multiplicity of each in a sample.
        ground_truths: int64 `[samples]`: the number of objects to find.
        ap: See `Protocol.ap`.

    Returns:
        float64 `[samples]` in [0, 1]; NaN without ground truth.
    """
    # Precision falls from one true detection to the next, so only those are computed.
    ranks = np.flatnonzero(hits)
    copies = weights[:, ranks]
    found, seen = np.cumsum(copies, axis=1), np.cumsum(weights, axis=1)[:, ranks]
    precision = np.divide(found, seen, out=np.zeros(found.shape), where=seen > 0)
    # The envelope is the highest precision at this recall or any higher one. Copies of a true
    # detection are adjacent and precision rises through them, so the last copy represents all.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    defined = ground_truths > 0
    total = np.where(defined, ground_truths, 1)
    if ap == "area":
        # With a term for each detection: the last bit of a sum depends on its number of terms.
        terms = np.zeros(weights.shape)
        terms[:, ranks] = envelope * copies
        values = terms.sum(axis=1) / total
    else:
        # Each of the 11 points takes the envelope of the first detection that reaches its recall,
        # or 0 if none does: hence the padding.
        envelope = np.pad(envelope, ((0, 0), (0, 1)))
        reaching = np.pad(10 * found, ((0, 0), (0, 1)), constant_values=np.iinfo(np.int64).max)
        points = [
            (reaching >= k * total[:, np.newaxis]).argmax(axis=1)[:, np.newaxis] for k in range(11)
        ]
        values = sum(np.take_along_axis(envelope, first, 1)[:, 0] for first in points) / 11
    return np.where(defined, values, np.nan)


def evaluate(
    ground_truth: GroundTruth,
    detections: Detections,
    protocol: Protocol,
    iou_thresholds: Sequence[float],
) -> list[ClassResult]:
    """Measures detections class by class.

    Args:
        ground_truth: The annotated boxes.
        detections: The predicted boxes.
        protocol: The rules; see `protocol.PROTOCOLS`.
        iou_thresholds: Intersections over union from which a box counts as correct.

    Returns:
        A result for each class and threshold, in the order of both.
    """
    results = []
    for category_id, name in enumerate(ground_truth.categories, start=1):
        truth = ground_truth.category_ids == category_id
        found = np.flatnonzero(detections.category_ids == category_id)
        ranked = found[np.argsort(-detections.scores[found], kind="stable")]
        counted = truth & ~(ground_truth.difficult & (protocol.difficult == "ignore"))
        pairs = pair_boxes(ground_truth, truth, detections, ranked, protocol.mixed_pixels)
        best = _best_objects(pairs)
        total = int(counted.sum())
        for iou in iou_thresholds:
            enough = best.iou >= iou if protocol.inclusive else best.iou > iou
            enough &= best.iou > 0  # disjoint boxes never match, not even at a threshold of 0
            match, first = _match(best, enough)
            # Detections of an ignored object are neither true nor false. Index -1 is no object.
            valid = np.append(counted, True)[match]
            hits = ((match >= 0) & first)[valid]
            results.append(
                ClassResult(
                    class_name=name,
                    iou=float(iou),
                    ap=average_precision(hits, total, protocol.ap),
                    recall=float(hits.sum() / total) if total else float("nan"),
                    detections=len(found),
                    ground_truths=total,
                    hits=hits,
                    hit_images=detections.image_ids[ranked][valid],
                    truth_images=ground_truth.image_ids[counted],
                    scores=detections.scores[ranked][valid],
                )
            )
    return results


@dataclass(frozen=True)
class Pairs:
    """All pairs of a ranked detection and an object of its image, sorted by detection.

    Attributes:
        count: The number of detections.
        places: int64 `[pairs]`, the rank of the detection.
        objects: int64 `[pairs]`, the row of the object.
        iou: float64 `[pairs]`, their intersection over union.
    """

    count: int
    places: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]


def pair_boxes(
    ground_truth: GroundTruth,
    truth: npt.NDArray[np.bool_],
    detections: Detections,
    ranked: npt.NDArray[np.int64],
    mixed_pixels: bool = False,
) -> Pairs:
    """Pairs the detections `ranked` with the objects `truth` of their images."""
    rows = np.flatnonzero(truth)
    rows = rows[np.argsort(ground_truth.image_ids[rows], kind="stable")]
    image_ids = ground_truth.image_ids[rows]
    starts = np.searchsorted(image_ids, detections.image_ids[ranked], "left")
    counts = np.searchsorted(image_ids, detections.image_ids[ranked], "right") - starts
    places = np.repeat(np.arange(len(ranked)), counts)
    within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    objects = rows[np.repeat(starts, counts) + within]
    shift = np.array([1.0, 1.0, 0.0, 0.0]) if mixed_pixels else 0.0
    overlaps = np.empty(len(places))
    for start in range(0, len(places), _BLOCK):
        part = slice(start, start + _BLOCK)
        overlaps[part] = paired_iou(
            detections.boxes[ranked[places[part]]],
            ground_truth.boxes[objects[part]] + shift,
            mixed_pixels,
        )
    return Pairs(len(ranked), places, objects, overlaps)


def _best_objects(pairs: Pairs) -> Pairs:
    """The pair of each detection with the highest overlap, the first of equals."""
    order = np.lexsort((-pairs.iou, pairs.places))  # stable
    places, leaders = np.unique(pairs.places[order], return_index=True)
    best = order[leaders]
    return Pairs(pairs.count, places, pairs.objects[best], pairs.iou[best])


def _match(
    best: Pairs, enough: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The matching object of each detection, or -1; and whether it is the object's first.

    As in VOC's devkit, a detection whose best object is taken has no second choice.
    """
    match = np.full(best.count, -1, np.int64)
    match[best.places[enough]] = best.objects[enough]
    first = np.zeros(best.count, bool)
    first[np.unique(match, return_index=True)[1]] = True
    return match, first
