"""The protocols: each rule by hand, against a second implementation, and what must always hold."""

import math
from fractions import Fraction
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from helpers import found, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from kgradcam.boxes.overlap import box_iou
from kgradcam.errors import UserError
from kgradcam.metrics import average_precision as average_precision_module
from kgradcam.metrics.average_precision import average_precision, evaluate
from kgradcam.metrics.protocol import PROTOCOLS, find_protocol
from kgradcam.runs.tables import Detections, GroundTruth

VOC2010, VOC2007, OF_2021 = (PROTOCOLS[name] for name in ("voc2010", "voc2007", "2021"))
A, B = [0.0, 0, 10, 10], [20.0, 20, 30, 30]


def measure(ground_truth: GroundTruth, detections: Detections, protocol=VOC2010, iou=0.5):
    """The result for cats, category 1."""
    return evaluate(ground_truth, detections, protocol, [iou])[0]


@pytest.mark.parametrize(
    ("hits", "total", "area", "eleven"),
    [
        # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: the envelope is 1 to 1/2, then 2/3.
        ([1, 0, 1], 2, 0.5 + 1 / 3, (6 * 1 + 5 * 2 / 3) / 11),
        ([1, 1], 2, 1, 1),
        ([0, 0], 2, 0, 0),
        ([], 2, 0, 0),
        ([1], 4, 0.25, 3 / 11),  # recall 1/4 reaches 0, 0.1, 0.2
        ([0, 1], 1, 0.5, 0.5),
    ],
)
def test_average_precision_by_hand(hits, total, area, eleven) -> None:
    ranked = np.array(hits, bool)
    assert average_precision(ranked, total, "area") == pytest.approx(area)
    assert average_precision(ranked, total, "11") == pytest.approx(eleven)


def exact_average_precision(hits: list[bool], total: int, ap: str) -> Fraction:
    """Both definitions once more in exact fractions, as in the papers: over points of recall."""
    points = [
        (Fraction(sum(hits[:n]), total), Fraction(sum(hits[:n]), n))
        for n in range(1, len(hits) + 1)
    ]

    def envelope(recall: Fraction) -> Fraction:
        return max((p for r, p in points if r >= recall), default=Fraction(0))

    if ap == "11":
        return sum((envelope(Fraction(k, 10)) for k in range(11)), Fraction(0)) / 11
    recalls = sorted({Fraction(0), *(r for r, _ in points)})
    steps = pairwise(recalls)
    return sum(((high - low) * envelope(high) for low, high in steps), Fraction(0))


@settings(max_examples=300)
@given(st.lists(st.booleans(), max_size=60), st.integers(0, 12), st.sampled_from(["area", "11"]))
def test_average_precision_in_exact_fractions(hits: list[bool], missed: int, ap: str) -> None:
    total = sum(hits) + missed or 1
    expected = float(exact_average_precision(hits, total, ap))
    assert average_precision(np.array(hits, bool), total, ap) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("tenths", [3, 6, 7])
def test_a_recall_of_exactly_tenths_reaches_its_point(tenths: int) -> None:
    """0.1 * 3 is 0.30000000000000004, which 3/10 does not reach: a trap of floating point."""
    hits = np.ones(tenths, bool)
    assert average_precision(hits, 10, "11") == pytest.approx((tenths + 1) / 11)


def test_without_ground_truth_nothing_is_defined() -> None:
    result = measure(truth((1, 2, A, False)), found((1, 1, A, 0.5)))
    assert math.isnan(result.ap)
    assert math.isnan(result.recall)
    assert (result.detections, result.ground_truths) == (1, 0)


def test_a_second_hit_is_false() -> None:
    result = measure(truth((1, 1, A, False)), found((1, 1, A, 0.9), (1, 1, A, 0.8)))
    assert result.hits.tolist() == [True, False]


def test_there_is_no_second_choice() -> None:
    # The better one takes A; the other overlaps A more than B, though it would do for B as well.
    ground_truth = truth((1, 1, A, False), (1, 1, [0, 4, 10, 20], False))
    detections = found((1, 1, A, 0.9), (1, 1, [0, 0, 10, 13], 0.8))
    assert box_iou(np.array([[0.0, 0, 10, 13]]), ground_truth.boxes).round(3).tolist() == [
        [0.769, 0.45]
    ]
    assert measure(ground_truth, detections, iou=0.45).hits.tolist() == [True, False]


def test_boxes_apart_never_match() -> None:
    # The devkit looks only at objects that a box overlaps.
    for protocol in PROTOCOLS.values():
        result = measure(truth((1, 1, A, False)), found((1, 1, B, 0.9)), protocol, iou=0.0)
        assert result.hits.tolist() == [False]
        # Nor does a difficult object excuse them.
        hard = truth((1, 1, A, True), (2, 1, A, False))
        assert measure(hard, found((1, 1, B, 0.9)), protocol, iou=0.0).hits.tolist() == [False]


def test_no_detections_find_nothing() -> None:
    for protocol in PROTOCOLS.values():
        result = measure(truth((1, 1, A, False)), found(), protocol)
        assert (result.ap, result.recall, result.detections, result.ground_truths) == (0, 0, 0, 1)


def test_images_and_classes_do_not_mix() -> None:
    ground_truth = truth((1, 1, A, False), (2, 2, A, False))
    detections = found((2, 1, A, 0.9), (1, 2, A, 0.9), (1, 1, A, 0.1))
    cats, dogs = evaluate(ground_truth, detections, VOC2010, [0.5])
    assert cats.hits.tolist() == [False, True]
    assert dogs.hits.tolist() == [False]


def test_equal_overlap_counts_for_voc_and_not_in_2021() -> None:
    # Half-open 10x10 against 10x5: exactly 1/2.
    result = measure(truth((1, 1, A, False)), found((1, 1, [0, 0, 10, 5], 1)))
    assert result.ap == 1
    ground_truth = truth((1, 1, [0, 0, 8, 8], False))  # integers 1..8: 8x8 with the +1
    half = found((1, 1, [1, 1, 8, 4], 1))  # 8x4 with the +1: exactly 1/2
    assert measure(ground_truth, half, OF_2021).ap == 0
    assert measure(ground_truth, half, OF_2021, iou=0.49).ap == 1


def test_difficult_objects_are_ignored_by_voc_and_ordinary_in_2021() -> None:
    """AP unlike the devkit: review_object_detection_metrics #48, Object-Detection-Metrics #88."""
    ground_truth = truth((1, 1, A, True), (1, 1, B, False))
    detections = found((1, 1, A, 0.9), (1, 1, A, 0.85), (1, 1, B, 0.8))
    voc = measure(ground_truth, detections)
    assert voc.hits.tolist() == [True]  # both hits of the difficult one are neither true nor false
    assert (voc.ap, voc.ground_truths, voc.detections) == (1, 1, 3)
    of_2021 = measure(ground_truth, detections, OF_2021)
    assert of_2021.hits.tolist() == [True, False, True]
    assert of_2021.ground_truths == 2


def test_a_miss_beside_a_difficult_object_is_false() -> None:
    ground_truth = truth((1, 1, A, True), (1, 1, B, False))
    assert measure(ground_truth, found((1, 1, [0, 0, 10, 4], 0.9))).hits.tolist() == [False]


def test_ties_keep_the_order_of_the_table() -> None:
    ground_truth = truth((1, 1, A, False), (2, 1, A, False))
    one, other = (1, 1, A, 0.5), (2, 1, B, 0.5)
    assert measure(ground_truth, found(one, other)).hits.tolist() == [True, False]
    assert measure(ground_truth, found(other, one)).hits.tolist() == [False, True]


def test_eleven_points_and_area_are_those_of_the_protocols() -> None:
    ground_truth = truth((1, 1, A, False), (1, 1, B, False))
    detections = found((1, 1, A, 0.9), (1, 1, [40, 0, 45, 5], 0.8), (1, 1, B, 0.7))
    assert measure(ground_truth, detections, VOC2010).ap == pytest.approx(5 / 6)
    assert measure(ground_truth, detections, VOC2007).ap == pytest.approx((6 + 10 / 3) / 11)


def test_an_unknown_protocol_gets_a_hint() -> None:
    with pytest.raises(UserError, match=r"Received: 'voc207'. Did you mean 'voc2007'"):
        find_protocol("voc207")


@pytest.mark.parametrize("name", ["coco", "wsol"])
def test_protocols_with_other_measures_name_their_command(name: str) -> None:
    with pytest.raises(UserError, match=f"use `kgradcam {name}`"):
        find_protocol(name)


def naive(ground_truth, detections, protocol, iou):
    """The rules once more, as a loop over detections: hits and number of objects, for cats."""
    objects = [
        (int(i), tuple(box), bool(hard))
        for i, c, box, hard in zip(
            ground_truth.image_ids,
            ground_truth.category_ids,
            ground_truth.boxes,
            ground_truth.difficult,
            strict=True,
        )
        if c == 1
    ]
    extra = 1 if protocol.mixed_pixels else 0

    def overlap(a, b) -> float:
        b = (b[0] + extra, b[1] + extra, b[2], b[3])
        w = min(a[2], b[2]) - max(a[0], b[0]) + extra
        h = min(a[3], b[3]) - max(a[1], b[1]) + extra
        if w <= 0 or h <= 0:
            return 0.0
        size = [(x[2] - x[0] + extra) * (x[3] - x[1] + extra) for x in (a, b)]
        return w * h / (size[0] + size[1] - w * h)

    rows = [i for i in range(len(detections.boxes)) if detections.category_ids[i] == 1]
    rows.sort(key=lambda i: -detections.scores[i])
    taken, hits = set(), []
    for i in rows:
        best, best_overlap = None, 0.0
        for j, (image_id, box, _) in enumerate(objects):
            if image_id == detections.image_ids[i]:
                value = overlap(tuple(detections.boxes[i]), box)
                if value > best_overlap:
                    best, best_overlap = j, value
        right = best_overlap >= iou if protocol.inclusive else best_overlap > iou
        if best is None or not right:
            hits.append(False)
        elif objects[best][2] and protocol.difficult == "ignore":
            continue
        else:
            hits.append(best not in taken)
            taken.add(best)
    counted = [hard and protocol.difficult == "ignore" for _, _, hard in objects].count(False)
    return hits, counted


box = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6)).map(
    lambda t: [float(t[0]), float(t[1]), float(t[0] + t[2]), float(t[1] + t[3])]
)
objects = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), box, st.booleans()), max_size=6)
scored = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 2), box, st.sampled_from([0.1, 0.2, 0.5, 0.9])),
    max_size=8,
)


@settings(max_examples=300)
@given(
    objects, scored, st.sampled_from(list(PROTOCOLS)), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75])
)
def test_a_second_implementation_agrees(truths, boxes, name: str, iou: float) -> None:
    ground_truth, detections = truth(*truths), found(*boxes)
    with patch.object(average_precision_module, "_BLOCK", 2):
        result = measure(ground_truth, detections, PROTOCOLS[name], iou)
    hits, counted = naive(ground_truth, detections, PROTOCOLS[name], iou)
    assert result.hits.tolist() == hits
    assert result.ground_truths == counted


@given(objects, st.sampled_from(list(PROTOCOLS)))
def test_perfect_boxes_are_perfect(truths, name: str) -> None:
    # Apart, so that no box overlaps a neighbour more than itself.
    apart = [
        (i % 3 + 1, c, [b[0] + 40 * i, b[1], b[2] + 40 * i, b[3]], d)
        for i, (_, c, b, d) in enumerate(truths)
    ]
    ground_truth = truth(*apart)
    shift = 1 if PROTOCOLS[name].mixed_pixels else 0
    perfect = [(i, c, [b[0] + shift, b[1] + shift, b[2], b[3]], 0.5) for i, c, b, _ in apart]
    for result in evaluate(ground_truth, found(*perfect), PROTOCOLS[name], [0.5, 0.99]):
        assert math.isnan(result.ap) if result.ground_truths == 0 else result.ap == 1


@given(objects, scored, st.randoms(use_true_random=False))
def test_what_must_not_matter(truths, boxes, random) -> None:
    boxes = [(i, c, b, s + k / 100) for k, (i, c, b, s) in enumerate(boxes)]  # no ties
    before = evaluate(truth(*truths), found(*boxes), VOC2010, [0.3])
    shuffled = list(boxes)
    random.shuffle(shuffled)
    scaled = [(i, c, b, math.exp(s)) for i, c, b, s in shuffled]
    renamed = {1: 3, 2: 1, 3: 2}
    after = evaluate(
        truth(*[(renamed[i], c, b, d) for i, c, b, d in truths]),
        found(*[(renamed[i], c, b, s) for i, c, b, s in scaled]),
        VOC2010,
        [0.3],
    )
    for one, other in zip(before, after, strict=True):
        assert one.hits.tolist() == other.hits.tolist()


@given(objects, scored)
def test_one_more_false_box_at_the_end_never_helps(truths, boxes) -> None:
    aside = (1, 1, [100.0, 100, 101, 101], 0.0)
    for protocol in PROTOCOLS.values():
        before = measure(truth(*truths), found(*boxes), protocol, 0.3)
        after = measure(truth(*truths), found(*boxes, aside), protocol, 0.3)
        if before.ground_truths:
            assert after.ap == before.ap
