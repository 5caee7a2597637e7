"""Boxes at many heat levels: hand-drawn maps, and properties of any map."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgradcam.boxes.find import boxes_by_option, find_boxes
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.overlap import box_iou


def test_the_best_box_over_all_levels() -> None:
    """A dense core in a faint field: the core's box holds less heat, but is dense; one stays."""
    heatmap = np.zeros((40, 80), np.float32)
    heatmap[4:36, 8:72] = 0.3
    heatmap[10:30, 20:60] = 1.0
    boxes, scores = find_boxes(heatmap, (80, 40), probability=0.125)
    # The core: 800 of 800 + 0.3 * 1248 heat, density 1; cube root of the probability 0.5.
    assert boxes.tolist() == [[20, 10, 60, 30]]
    np.testing.assert_allclose(scores, [0.5 * 800 / (800 + 0.3 * 1248)], rtol=1e-5)
    # With much heat around it, the whole field has the better score: 0.5 * 1 * its density.
    heatmap[heatmap == np.float32(0.3)] = 0.75
    boxes, scores = find_boxes(heatmap, (80, 40), probability=0.125)
    assert boxes.tolist() == [[8, 4, 72, 36]]
    np.testing.assert_allclose(scores, [0.5 * (800 + 0.75 * 1248) / 2048], rtol=1e-5)


def test_a_box_for_each_of_two_objects_that_touch_only_below_a_level() -> None:
    heatmap = np.full((20, 60), 0.4, np.float32)
    heatmap[:, 4:20] = heatmap[:, 40:56] = 1.0
    heatmap[:, 56:] = heatmap[:, :4] = 0.0
    boxes, _ = find_boxes(heatmap, (60, 20), threshold=0.5)
    assert sorted(boxes.tolist()) == [[4, 0, 20, 20], [40, 0, 56, 20]]
    # From .25 up the whole is one more box: it scores best, and overlaps each half by .31 only.
    assert len(find_boxes(heatmap, (60, 20))[0]) == 3
    assert len(find_boxes(heatmap, (60, 20), options=BoxOptions(iou_threshold=0.3))[0]) == 1


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
)
def test_boxes_of_any_map_lie_in_the_image_and_hardly_overlap(
    heatmap: np.ndarray, size: tuple[int, int], probability: float
) -> None:
    thresholds = [0.1, 0.13, 0.25, 0.4, 0.42, 0.6]
    found = boxes_by_option(heatmap, size, probability, thresholds, [0], BoxOptions())
    for threshold, (boxes, scores) in zip(thresholds, found, strict=True):
        alone = find_boxes(heatmap, size, probability, threshold)
        np.testing.assert_array_equal(alone[0], boxes)
        np.testing.assert_array_equal(alone[1], scores)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= np.array(size) + 1e-6).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert ((scores >= 0) & (scores <= 1)).all()
        assert (np.diff(scores) <= 0).all()
        pairs = np.triu_indices(len(boxes), k=1)
        assert (box_iou(boxes, boxes)[pairs] <= 0.35 + 1e-9).all()
