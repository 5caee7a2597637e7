"""Sides of a box that move: four numbers by hand, and where they stop."""

import numpy as np

from kgradcam.boxes.moves import (
    LARGEST_MOVE,
    MOVE_BIAS,
    MOVE_WEIGHTS,
    describe_sides,
    move_sides,
)

CANVAS = np.zeros((8, 12), np.float32)
CANVAS[2:6, 4:8] = 1
CANVAS[2:6, 8] = 0.5  # heat to the right of the box
BOX = np.array([[4.0, 2, 8, 6]])


def test_the_four_numbers_of_each_side_by_hand() -> None:
    """The strips are one pixel deep: a quarter of four."""
    outside, shape, size, shares = describe_sides(CANVAS, BOX)[0].T
    assert outside.tolist() == [0, 0, 0.5, 0]
    assert shape.tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(size, np.log([4 / 12, 4 / 8, 4 / 12, 4 / 8]))
    np.testing.assert_allclose(shares, 16 / 18)
    _, shape, *_ = describe_sides(CANVAS, np.array([[4.0, 2, 8, 4]]))[0].T
    np.testing.assert_allclose(shape, np.log([2, 0.5, 2, 0.5]))


def test_a_side_moves_outwards_by_a_weighted_sum() -> None:
    left, top, right, bottom = MOVE_BIAS + describe_sides(CANVAS, BOX)[0] @ MOVE_WEIGHTS
    expected = BOX + 4 * np.array([-left, -top, right, bottom])
    np.testing.assert_allclose(move_sides(CANVAS, BOX), expected)
    assert right > left


def test_a_side_at_the_border_of_the_image_stays() -> None:
    whole = np.array([[0.0, 0, 12, 8], [0, 2, 12, 6]])
    moved = move_sides(CANVAS, whole)
    assert moved[0].tolist() == [0, 0, 12, 8]
    assert moved[1, [0, 2]].tolist() == [0, 12]


def test_no_side_moves_far_nor_out_of_the_image() -> None:
    canvas = np.full((60, 80), 0.5, np.float32)
    for box in ([1.0, 1, 79, 2], [1, 1, 2, 59], [40, 30, 41, 31], [0, 0, 80, 1]):
        (moved,) = move_sides(canvas, np.array([box]))
        limits = LARGEST_MOVE * np.tile([box[2] - box[0], box[3] - box[1]], 2)
        assert (abs(moved - box) <= limits + 1e-9).all()
        assert (moved >= 0).all()
        assert (moved <= [80, 60, 80, 60]).all()
