"""The IoU to expect of a box: its six numbers by hand, and what they cannot depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.boxes.expected_iou import BIAS, WEIGHTS, describe, expected_iou
from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.levels import level_canvas
from kgradcam.boxes.moves import move_sides
from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UsageError

CANVAS = np.array([[1, 1, 0, 0], [0.5, 0.5, 0, 0.5]], np.float32)
BOXES = np.array([[0.0, 0, 2, 2], [0, 0, 2, 1], [3, 1, 4, 2], [0, 0, 4, 2]])


def test_the_six_numbers_by_hand() -> None:
    """Heat 3.5: a region at two levels, a spot, and the whole canvas."""
    shares, densities, borders, stability, support, relative = describe(CANVAS, BOXES).T
    np.testing.assert_allclose(shares, [3 / 3.5, 2 / 3.5, 0.5 / 3.5, 1])
    np.testing.assert_allclose(densities, [0.75, 1, 0.5, 3.5 / 8])
    assert borders.tolist() == [3, 2, 2, 4]
    # Products of share and density: 2.25, 2, .25 and 1.53125, in parts of 3.5.
    np.testing.assert_allclose(relative, [1, 2 / 2.25, 0.25 / 2.25, 1.53125 / 2.25])
    # IoU of the first with the others: 1/2, 0 and 1/2; no pair reaches .6.
    assert stability.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(support[0], 1 + 0.5 * 2 / 2.25 + 0.5 * 1.53125 / 2.25)
    twice = describe(CANVAS, BOXES[[0, 0, 1]])
    assert twice[:, 3].tolist() == [2, 2, 1]


def test_the_iou_is_a_weighted_sum_in_bounds() -> None:
    expected = expected_iou(CANVAS, BOXES)
    np.testing.assert_allclose(expected, np.clip(BIAS + describe(CANVAS, BOXES) @ WEIGHTS, 0, 1))
    assert expected_iou(CANVAS, BOXES[:0]).shape == (0,)


@given(st.integers(0, 2**32 - 1))
def test_a_turned_or_mirrored_image_has_the_same_scores(seed: int) -> None:
    heatmap = np.random.default_rng(seed).uniform(size=(5, 7)).astype(np.float32)
    options = BoxOptions(score="expected-iou")
    _, scores = find_boxes(heatmap, (70, 50), 0.5, options=options)
    for other, size in (
        (heatmap[:, ::-1], (70, 50)),
        (heatmap[::-1], (70, 50)),
        (heatmap.T, (50, 70)),
    ):
        turned = find_boxes(other, size, 0.5, options=options)[1]
        # Where rivals are equal but for rounding, another one may be kept: the best is the same.
        np.testing.assert_allclose(turned[:1], scores[:1], rtol=1e-4)


def test_a_region_that_many_levels_agree_on_wins() -> None:
    """A plateau on a flat slope: the slope's boxes shrink with the level, the plateau's do not."""
    y, x = np.mgrid[:120, :128]
    distance = np.maximum(np.maximum(abs(y - 60) - 10, abs(x - 64) - 12), 0)
    heatmap = np.where(distance == 0, 1, np.maximum(0.64 - 0.006 * distance, 0))
    best = {
        score: find_boxes(heatmap, (128, 120), options=BoxOptions(score=score))[0][0].tolist()
        for score in ("expected-iou", "density")
    }
    canvas, _ = level_canvas(heatmap, (128, 120))
    (stable,) = move_sides(canvas, np.array([[52.0, 50, 77, 71]]))
    assert best["expected-iou"] == stable.tolist()
    assert best["density"] == [40, 38, 89, 83]


def test_the_tenth_root_of_the_probability() -> None:
    options = BoxOptions(score="expected-iou")
    heatmap = np.random.default_rng(0).uniform(size=(6, 6))
    boxes, scores = find_boxes(heatmap, (60, 60), 1.0, options=options)
    again, lower = find_boxes(heatmap, (60, 60), 2.0**-10, options=options)
    np.testing.assert_array_equal(again, boxes)
    np.testing.assert_allclose(lower, scores / 2, rtol=1e-12)


def test_one_threshold_has_no_levels_to_compare() -> None:
    with pytest.raises(UsageError, match="needs boxes='levels'"):
        BoxOptions("single-threshold", score="expected-iou")
