"""The confidence of a box, by hand."""

import numpy as np

from kgradcam.boxes.scores import score_boxes


def drawn(*rows: str) -> np.ndarray:
    """A heatmap from digits: '0' is 0.0, '9' is 0.9."""
    return np.array([[int(digit) / 10 for digit in row] for row in rows], np.float32)


def test_a_box_is_scored_by_its_share_of_the_heat() -> None:
    heatmap = drawn("9900", "0003")
    boxes = np.array([[0.0, 0, 2, 1], [3, 1, 4, 2], [0, 0, 4, 2]])
    scores = score_boxes(heatmap, boxes, probability=0.7, score="heat")
    np.testing.assert_allclose(scores, [0.7 * 18 / 21, 0.7 * 3 / 21, 0.7], rtol=1e-6)
    assert score_boxes(heatmap, boxes, 0.7, "constant").tolist() == [1, 1, 1]


def test_a_cold_map_has_no_confidence() -> None:
    cold = np.zeros((2, 2), np.float32)
    assert score_boxes(cold, np.array([[0.0, 0, 2, 2]]), 0.9, "heat").tolist() == [0]
