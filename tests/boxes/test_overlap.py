"""Intersection over union by hand, and by the "+1" of VOC's devkit."""

import numpy as np
import pytest

from kgradcam.boxes.overlap import box_iou


@pytest.mark.parametrize(
    ("a", "b", "inclusive", "expected"),
    [
        ([0, 0, 2, 2], [1, 0, 3, 2], False, 1 / 3),
        ([0, 0, 2, 2], [2, 0, 4, 2], False, 0),  # half-open boxes that touch
        ([0, 0, 1, 1], [1, 0, 2, 1], True, 2 / 6),  # inclusive ones share a column
        ([0, 0, 0, 0], [0, 0, 0, 0], False, 0),  # empty, not NaN
        ([0, 0, 0, 0], [0, 0, 0, 0], True, 1),
        ([0, 0, 10, 10], [20, 20, 30, 30], False, 0),
    ],
)
def test_box_iou(a, b, inclusive, expected) -> None:
    assert box_iou(np.array([a], float), np.array([b], float), inclusive) == pytest.approx(expected)


def test_half_open_iou_is_the_devkits_plus_one_on_vocs_integers() -> None:
    generator = np.random.default_rng(0)
    corners = generator.integers(0, 30, (2, 40, 2))
    boxes = np.concatenate([corners.min(0), corners.max(0) + 1], axis=1).astype(float)
    inclusive = boxes + np.array([1, 1, 0, 0])
    np.testing.assert_allclose(box_iou(boxes, boxes), box_iou(inclusive, inclusive, inclusive=True))
