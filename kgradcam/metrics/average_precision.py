"""Average precision and recall of boxes, by named protocols.

What the protocols share: detections of a class are taken in the order of their confidence, highest
first, ties in the order of the table. A detection is true if it overlaps an object of its class in
its image by enough, and none before it has taken that object; else it is false. Precision is the
share of true ones among the detections so far, recall the share of the objects found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import paired_iou
from kgradcam.errors import UsageError, did_you_mean
from kgradcam.runs.tables import Detections, GroundTruth

AveragePrecision = Literal["area", "11", "101"]


@dataclass(frozen=True)
class Protocol:
    """The rules in which evaluations differ.

    Attributes:
        name: Its name.
        ap: `"area"`, under the precision envelope at all points (VOC from 2010 on); `"11"`, the
            mean of the envelope at recalls 0, 0.1, ..., 1 (VOC2007); or `"101"`, at 0, 0.01, ..., 1
            (COCO).
        difficult: `"ignore"`: difficult objects do not count, and detections of them neither; or
            `"count"`: they are ordinary.
        inclusive: Whether an overlap that equals the threshold suffices, or must exceed it.
        match: `"devkit"`: a detection is compared with the one object that it overlaps most;
            `"coco"`: with the one it overlaps most of those not yet taken.
        mixed_pixels: Whether overlaps are computed as the seed did: ground truth in VOC's integers,
            which count from 1, against half-open detections, adding 1 to every width and height.
            Else both are half-open, which on whole pixels is the devkit's "+1" exactly.
    """

    name: str
    ap: AveragePrecision
    difficult: Literal["ignore", "count"] = "ignore"
    inclusive: bool = True
    match: Literal["devkit", "coco"] = "devkit"
    mixed_pixels: bool = False

    def changed(self, **rules: Any) -> "Protocol":
        """Returns a protocol with other rules, which its name tells; `None` leaves one as it is."""
        other = {
            name: rule for name, rule in rules.items() if rule not in (None, getattr(self, name))
        }
        name = " ".join([self.name, *(f"{name}={rule}" for name, rule in other.items())])
        return replace(self, name=name, **other)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("seed", ap="area", difficult="count", inclusive=False, mixed_pixels=True),
        Protocol("voc2007", ap="11"),
        Protocol("voc2010", ap="area"),
    )
}


def find_protocol(name: str) -> Protocol:
    """Returns a protocol by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise UsageError(
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
        hit_images: int64 `[ranked]`, the image of each.
        truth_images: int64 `[ground_truths]`, the image of each object that counts.
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
    weights = np.ones((1, len(hits)), np.int64)
    return float(weighted_average_precision(hits, weights, np.array([ground_truths]), ap)[0])


def weighted_average_precision(
    hits: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.int64],
    ground_truths: npt.NDArray[np.int64],
    ap: AveragePrecision,
) -> npt.NDArray[np.float64]:
    """Returns average precisions where each detection is there several times, or not at all.

    Args:
        hits: bool `[detections]`, best first: whether each is true.
        weights: int64 `[samples, detections]`: how often.
        ground_truths: int64 `[samples]`: how many objects there are to find.
        ap: See `Protocol`.

    Returns:
        `[samples]`, 0 to 1; NaN without ground truth.
    """
    found = np.cumsum(weights * hits, axis=1)
    seen = np.cumsum(weights, axis=1)
    precision = np.divide(found, seen, out=np.zeros(found.shape), where=seen > 0)
    # The envelope: the best precision at this recall or a higher one. Copies of a true detection
    # follow one another, and precision rises through them, so the last one stands for all.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    defined = ground_truths > 0
    total = np.where(defined, ground_truths, 1)
    if ap == "area":
        values = (envelope * (weights * hits)).sum(axis=1) / total
    else:
        steps = {"11": 10, "101": 100}[ap]
        # At each point the envelope of the first detection that reaches it; beyond all, nothing.
        envelope = np.pad(envelope, ((0, 0), (0, 1)))
        reaching = np.pad(steps * found, ((0, 0), (0, 1)), constant_values=np.iinfo(np.int64).max)
        points = [
            (reaching >= k * total[:, np.newaxis]).argmax(axis=1)[:, np.newaxis]
            for k in range(steps + 1)
        ]
        values = sum(np.take_along_axis(envelope, first, 1)[:, 0] for first in points) / len(points)
    return np.where(defined, values, np.nan)


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
        counted = truth & ~(ground_truth.difficult & (protocol.difficult == "ignore"))
        pairs = _pair(ground_truth, truth, detections, ranked, protocol.mixed_pixels)
        total = int(counted.sum())
        for iou in iou_thresholds:
            enough = pairs.iou >= iou if protocol.inclusive else pairs.iou > iou
            enough &= pairs.iou > 0  # boxes apart never match, not even at a threshold of 0
            if protocol.match == "devkit":
                match, first = _match_devkit(pairs, enough)
            else:
                match, first = _match_coco(pairs, enough, counted)
            # Detections of an ignored object are neither true nor false.
            valid = np.append(counted, True)[match]  # -1 is none
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
                )
            )
    return results


@dataclass(frozen=True)
class _Pairs:
    """Every ranked detection with every object of its image, the pairs of a detection together.

    Attributes:
        count: How many detections there are.
        places: int64 `[pairs]`, the rank of the detection.
        objects: int64 `[pairs]`, the row of the object.
        iou: float64 `[pairs]`, their overlap.
    """

    count: int
    places: npt.NDArray[np.int64]
    objects: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]


def _pair(
    ground_truth: GroundTruth,
    truth: npt.NDArray[np.bool_],
    detections: Detections,
    ranked: npt.NDArray[np.int64],
    mixed_pixels: bool,
) -> _Pairs:
    rows = np.flatnonzero(truth)
    rows = rows[np.argsort(ground_truth.image_ids[rows], kind="stable")]
    image_ids = ground_truth.image_ids[rows]
    starts = np.searchsorted(image_ids, detections.image_ids[ranked], "left")
    counts = np.searchsorted(image_ids, detections.image_ids[ranked], "right") - starts
    places = np.repeat(np.arange(len(ranked)), counts)
    within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    objects = rows[np.repeat(starts, counts) + within]
    shift = np.array([1.0, 1.0, 0.0, 0.0]) if mixed_pixels else 0.0
    overlaps = paired_iou(
        detections.boxes[ranked[places]], ground_truth.boxes[objects] + shift, mixed_pixels
    )
    return _Pairs(len(ranked), places, objects, overlaps)


def _match_devkit(
    pairs: _Pairs, enough: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The object that each detection overlaps most, or -1; and whether it is the first to do so."""
    order = np.lexsort((-pairs.iou, pairs.places))  # stable: the first of equals leads
    places, leaders = np.unique(pairs.places[order], return_index=True)
    best = order[leaders]
    match = np.full(pairs.count, -1, np.int64)
    match[places[enough[best]]] = pairs.objects[best[enough[best]]]
    first = np.zeros(pairs.count, bool)
    first[np.unique(match, return_index=True)[1]] = True
    return match, first


def _match_coco(
    pairs: _Pairs, enough: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The free object that each detection overlaps most, or -1; ignored objects stay free."""
    match = np.full(pairs.count, -1, np.int64)
    taken: set[int] = set()
    # Detection by detection; an object that counts goes before one that is ignored.
    for i in np.lexsort((-pairs.iou, ~counted[pairs.objects], pairs.places)):
        place, row = pairs.places[i], int(pairs.objects[i])
        if enough[i] and match[place] < 0 and row not in taken:
            match[place] = row
            if counted[row]:
                taken.add(row)
    return match, match >= 0
