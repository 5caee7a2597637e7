"""Boxes at many heat levels: hand-drawn maps, and properties of any map."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgradcam.boxes.expected_iou import BIAS, WEIGHTS
from kgradcam.boxes.find import boxes_by_option, find_boxes
from kgradcam.boxes.levels import _smooth, compete
from kgradcam.boxes.moves import move_sides
from kgradcam.boxes.options import DEFAULT_OPTIONS, BoxOptions
from kgradcam.boxes.overlap import box_iou

DENSITY = BoxOptions(score="density")
"""Boxes as regions have them: nothing moves them."""


def test_the_best_box_over_all_levels() -> None:
    """A dense core in a faint field: one box stays, of the core or of the field."""
    heatmap = np.zeros((40, 80), np.float32)
    heatmap[4:36, 8:72] = 0.3
    heatmap[10:30, 20:60] = 1.0
    boxes, scores = find_boxes(heatmap, (80, 40), probability=1 / 32, options=DENSITY)
    # The core: 800 of 800 + 0.3 * 1248 heat, density 1; fifth root of the probability 0.5.
    assert boxes.tolist() == [[20, 10, 60, 30]]
    np.testing.assert_allclose(scores, [0.5 * 800 / (800 + 0.3 * 1248)], rtol=1e-5)
    # By default: ten levels agree on it, so ten candidates overlap it by 1 and are as dense.
    boxes, scores = find_boxes(heatmap, (80, 40), probability=2.0**-10)
    expected = BIAS + np.dot(WEIGHTS, [800 / (800 + 0.3 * 1248), 1, 0, 10, 10, 1])
    np.testing.assert_array_equal(boxes, move_sides(heatmap, np.array([[20.0, 10, 60, 30]])))
    np.testing.assert_allclose(scores, [0.5 * expected], rtol=1e-5)
    # With much heat around it, the whole field has the better score: 0.5 * 1 * its density.
    heatmap[heatmap == np.float32(0.3)] = 0.75
    boxes, scores = find_boxes(heatmap, (80, 40), probability=1 / 32, options=DENSITY)
    assert boxes.tolist() == [[8, 4, 72, 36]]
    np.testing.assert_allclose(scores, [0.5 * (800 + 0.75 * 1248) / 2048], rtol=1e-5)


def test_a_box_for_each_of_two_objects_that_touch_only_below_a_level() -> None:
    heatmap = np.full((20, 60), 0.4, np.float32)
    heatmap[:, 4:20] = heatmap[:, 40:56] = 1.0
    heatmap[:, 56:] = heatmap[:, :4] = 0.0
    boxes, _ = find_boxes(heatmap, (60, 20), threshold=0.5, options=DENSITY)
    assert sorted(boxes.tolist()) == [[4, 0, 20, 20], [40, 0, 56, 20]]
    # From .35 up the whole is one more box: it scores best, and overlaps each half by .31 only.
    assert len(find_boxes(heatmap, (60, 20), options=DENSITY)[0]) == 3
    strict = replace(DENSITY, iou_threshold=0.3)
    assert len(find_boxes(heatmap, (60, 20), options=strict)[0]) == 1


def test_a_box_loses_score_to_a_better_one_that_overlaps_it() -> None:
    """IoU 1/2 with the best, in widths of 1.5 * .35; 3/4 is above twice .35; the last is alone."""
    boxes = np.array([[0.0, 0, 4, 2], [0, 0, 4, 4], [0, 0, 4, 3], [8, 8, 9, 9]])
    found, scores = compete(boxes, np.array([0.8, 1, 0.9, 0.5]), BoxOptions())
    assert found.tolist() == boxes[[1, 3, 0]].tolist()
    np.testing.assert_allclose(scores, [1, 0.5, 0.8 * np.exp(-((0.5 / 0.525) ** 2))])
    # An option between 0, where nothing may overlap, and 1, where nearly everything stays.
    assert len(compete(boxes, np.ones(4), BoxOptions(iou_threshold=0))[0]) == 2
    assert len(compete(boxes, np.ones(4), BoxOptions(iou_threshold=1))[0]) == 4


def test_a_map_without_heat_has_no_box() -> None:
    boxes, scores = find_boxes(np.zeros((7, 7), np.float32), (50, 30))
    assert (boxes.shape, scores.shape) == ((0, 4), (0,))


@settings(max_examples=100)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 1, width=32),
    ),
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.floats(0, 1),
    st.sampled_from([(BoxOptions(), 0.7), (DENSITY, 0.35)]),
)
def test_boxes_of_any_map_lie_in_the_image_and_hardly_overlap(
    heatmap: np.ndarray,
    size: tuple[int, int],
    probability: float,
    choice: tuple[BoxOptions, float],
) -> None:
    options, most = choice
    thresholds = [0.1, 0.13, 0.25, 0.4, 0.42, 0.6]
    found = boxes_by_option(heatmap, size, probability, thresholds, [0], options)
    for threshold, (boxes, scores) in zip(thresholds, found, strict=True):
        alone = find_boxes(heatmap, size, probability, threshold, options)
        np.testing.assert_array_equal(alone[0], boxes)
        np.testing.assert_array_equal(alone[1], scores)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= np.array(size) + 1e-6).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert ((scores >= 0) & (scores <= 1)).all()
        assert (np.diff(scores) <= 0).all()
        pairs = np.triu_indices(len(boxes), k=1)
        assert (box_iou(boxes, boxes)[pairs] <= most + 1e-9).all()


heatmaps = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(0, 1, width=32),
)


@settings(max_examples=150, deadline=None)
@given(
    heatmaps,
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.lists(st.integers(0, 100).map(lambda i: i / 100) | st.floats(0, 1), min_size=1, max_size=6),
    st.lists(st.integers(0, 60), min_size=1, max_size=3),
    st.sampled_from(sorted(DEFAULT_OPTIONS)),
)
def test_a_grid_draws_the_boxes_of_each_option_alone(
    heatmap: np.ndarray,
    size: tuple[int, int],
    thresholds: list[float],
    radii: list[int],
    rules: str,
) -> None:
    options = DEFAULT_OPTIONS[rules]
    grid = boxes_by_option(heatmap, size, 0.5, thresholds, radii, options)
    for (radius, threshold), found in zip(product(radii, thresholds), grid, strict=True):
        one = replace(options, smooth_radius=radius)
        alone = find_boxes(heatmap, size, 0.5, threshold, one)
        np.testing.assert_array_equal(found[0], alone[0])
        np.testing.assert_array_equal(found[1], alone[1])


def test_a_threshold_between_the_levels_has_a_level_of_its_own() -> None:
    """Alone and beside a lower one: .52 bounds the middle three of these pixels."""
    heatmap = np.array([[0, 0.53, 1, 0.53, 0]], np.float32)
    expected = [[1, 0, 4, 1], [2, 0, 3, 1]]
    boxes, _ = find_boxes(heatmap, (5, 1), threshold=0.52, options=DENSITY)
    assert sorted(boxes.tolist()) == expected
    grid = boxes_by_option(heatmap, (5, 1), 1.0, [0.5, 0.52], [0], DENSITY)
    assert [sorted(boxes.tolist()) for boxes, _ in grid] == [expected, expected]


@pytest.mark.parametrize("width", [0.25, 0.5, 1, 1.28, 2, 5, 6.4, 30, 400])
def test_smoothing_of_any_width_is_a_symmetric_mean(width: float) -> None:
    spot = np.zeros((41, 41), np.float32)
    spot[20, 20] = 1
    smoothed = _smooth(spot, width)
    assert smoothed[20, 20] < 1
    np.testing.assert_allclose(smoothed, smoothed[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(smoothed.sum(), 1, rtol=1e-4)
    # A box filter of a linear slope is the slope, away from the border.
    slope = np.tile(np.arange(41, dtype=np.float32), (3, 1))
    np.testing.assert_allclose(_smooth(slope, width)[1, 20], 20, rtol=1e-5)


def test_smoothing_by_hand() -> None:
    """The mean over 2 of a triangle of height 1 and half-width 1: 1/2, and 1/4 beside it."""
    spot = np.array([[0, 0, 1, 0, 0]], np.float32)
    np.testing.assert_allclose(_smooth(spot, 2), [[0, 0.25, 0.5, 0.25, 0]], atol=1e-6)
    # Over 1/2: the triangle has 1 - 1/8 in the middle, and its foot of 1/4 has 1/32 of twice that.
    np.testing.assert_allclose(_smooth(spot, 0.5), [[0, 0.0625, 0.875, 0.0625, 0]], atol=1e-6)


@pytest.mark.parametrize("radius", [2, 3, 5, 8, 20, 41, 100])
def test_smoothing_moves_no_box(radius: int) -> None:
    """Of a picture that is its own mirror image, so are the boxes."""
    heatmap = np.zeros((15, 15), np.float32)
    heatmap[4:11, 5:10] = 0.6
    heatmap[6:9, 7] = 1.0
    boxes, _ = find_boxes(heatmap, (500, 500), options=BoxOptions(smooth_radius=radius))
    mirrored = 500 - boxes[:, [2, 3, 0, 1]]
    assert len(boxes)
    np.testing.assert_allclose(np.sort(mirrored, axis=0), np.sort(boxes, axis=0))
    unsmoothed, scores = find_boxes(heatmap, (500, 500))
    assert len(scores) == len(unsmoothed)


def spots(height: int, width: int, pitch: int) -> np.ndarray:
    """One hot cell in every `pitch` x `pitch` cells."""
    heatmap = np.zeros((height, width), np.float32)
    heatmap[pitch // 2 :: pitch, pitch // 2 :: pitch] = 1.0
    return heatmap


def test_hundreds_of_peaks_give_a_box_each() -> None:
    """Pixels of the canvas: ten levels have 4,410 candidates, more than are compared."""
    boxes, _ = find_boxes(spots(128, 128, 6), (128, 128))
    assert len(boxes) == 441
    assert box_iou(boxes, boxes).sum() == pytest.approx(441)


@pytest.mark.parametrize("size", [(4000, 3000), (1, 5000), (5000, 1), (1, 1)])
@pytest.mark.parametrize("value", ["noise", "spots", "flat"])
def test_images_of_any_shape_take_the_work_of_a_small_canvas(
    size: tuple[int, int], value: str
) -> None:
    heatmap = {
        "noise": np.random.default_rng(0).uniform(size=(94, 125)).astype(np.float32),
        "spots": spots(94, 125, 4),
        "flat": np.full((94, 125), 3.0, np.float32),
    }[value]
    boxes, _ = find_boxes(heatmap, size)
    # At most a box for every second pixel of the canvas of 128 x 128 at each of ten levels.
    assert len(boxes) <= 0 if value == "flat" else len(boxes) <= 10 * 128 * 128 / 2
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= np.array(size) + 1e-6).all()


@pytest.mark.parametrize("corner", [(0, 0), (0, 12), (8, 0), (8, 12)])
def test_the_box_of_an_object_at_the_border_ends_there(corner: tuple[int, int]) -> None:
    heatmap = np.zeros((12, 16), np.float32)
    row, column = corner
    heatmap[row : row + 4, column : column + 4] = 1.0
    ((box,), _) = find_boxes(heatmap, (160, 120), threshold=0.5)
    np.testing.assert_allclose(
        box, [10 * column, 10 * row, 10 * column + 40, 10 * row + 40], atol=4
    )
    at_border = np.array([column == 0, row == 0, column == 12, row == 8])
    edges = np.array([0, 0, 160, 120])
    np.testing.assert_allclose(box[at_border], edges[at_border])
