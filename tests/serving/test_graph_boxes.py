"""Boxes drawn inside a graph equal those of `find_boxes`."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kgradcam.boxes import BoxOptions, find_boxes
from kgradcam.boxes.levels import LEVELS, level_canvas
from kgradcam.errors import UserError
from kgradcam.serving.graph_boxes import check_options, level_boxes

MOST = 40


def compiled(options: BoxOptions, threshold: float):
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None]),
            tf.TensorSpec([2], tf.int32),
            tf.TensorSpec([]),
            tf.TensorSpec([4]),
        ]
    )
    def draw(heatmap, size, probability, extent):
        return level_boxes(heatmap, size, probability, extent, threshold, options, MOST)

    return draw


DRAWN = {
    (score, threshold): compiled(BoxOptions(score=score), threshold)
    for score in ("expected-iou", "density", "heat", "constant")
    for threshold in (0.05, 0.17, 0.35)
}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    size=st.tuples(st.integers(8, 400), st.integers(8, 400)),
    sparse=st.sampled_from([0.0, 0.5, 0.9]),
    choice=st.sampled_from(sorted(DRAWN)),
    extent=st.sampled_from([(0.0, 0.0, 1.0, 1.0), (0.125, 0.0, 0.875, 0.75)]),
)
def test_boxes_equal_those_of_find_boxes(seed, shape, size, sparse, choice, extent) -> None:
    """Where no pixel lies at a level: there, the last bit of an interpolation would decide."""
    random = np.random.default_rng(seed)
    heatmap = random.uniform(0, 1, shape) * (random.uniform(0, 1, shape) >= sparse)
    heatmap, probability = heatmap.astype(np.float32), random.uniform()
    canvas, _ = level_canvas(heatmap, size, extent)
    levels = np.array([choice[1], *LEVELS])
    assume(np.abs(canvas[..., np.newaxis] - levels).min() > 1e-6)
    options = BoxOptions(score=choice[0])
    boxes, scores = find_boxes(heatmap, size, probability, choice[1], options, extent)
    drawn, drawn_scores = (
        each.numpy() for each in DRAWN[choice](heatmap, size, probability, extent)
    )
    count = min(len(boxes), MOST)
    np.testing.assert_allclose(drawn[:count], boxes[:count], atol=1e-3)
    np.testing.assert_allclose(drawn_scores[:count], scores[:count], atol=1e-5)
    assert not drawn[count:].any()
    assert not drawn_scores[count:].any()


def test_a_spiral_is_one_region() -> None:
    """A region that winds: its ends are connected over hundreds of runs only."""
    side = 61
    mask, y, x = np.zeros((side, side), np.float32), 0, 0
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    mask[0, 0] = 1
    lengths = [side - 1, *(each for n in range(side - 1, 1, -2) for each in (n, n))]
    for turn, length in enumerate(lengths):
        for _ in range(length):
            y, x = y + steps[turn % 4][0], x + steps[turn % 4][1]
            mask[y, x] = 1
    boxes, _ = find_boxes(mask, (side, side), options=BoxOptions(score="density"))
    drawn, _ = DRAWN["density", 0.35](mask, (side, side), 1.0, (0.0, 0.0, 1.0, 1.0))
    assert boxes.tolist() == [[0, 0, side, side]]
    assert drawn[:2].numpy().tolist() == [[0, 0, side, side], [0, 0, 0, 0]]


def test_a_heatmap_without_heat_has_no_box() -> None:
    drawn, scores = DRAWN["density", 0.35](np.ones((3, 3), np.float32), (30, 30), 1.0, (0, 0, 1, 1))
    assert not drawn.numpy().any()
    assert not scores.numpy().any()


@pytest.mark.parametrize(
    "options", [BoxOptions(smooth_radius=5), BoxOptions(rules="single-threshold")]
)
def test_other_rules_are_refused(options: BoxOptions) -> None:
    with pytest.raises(UserError, match="follow the rules levels, without smoothing"):
        check_options(options)
