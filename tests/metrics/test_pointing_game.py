"""Heat against boxes and masks: pointing game and energy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.errors import UserError
from kgradcam.metrics.pointing_game import energy_inside, pointing_hit, region_mask


def hot(y: int, x: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    heatmap = np.zeros(shape, np.float32)
    heatmap[y, x] = 1
    return heatmap


@pytest.mark.parametrize(
    ("y", "x", "hit"),
    [
        (30, 40, True),  # inside
        (30, 20, True),  # its first column
        (30, 5, False),  # 15 pixels from it: strictly less is asked for
        (30, 6, True),  # 14
        (30, 73, True),  # 14 from the last column, 59, since boxes are half-open
        (30, 74, False),
        (9, 10, True),  # 11 up and 10 left: 14.9
        (8, 11, False),  # 12 up and 9 left: 15
    ],
)
def test_the_pointing_game_by_hand(y: int, x: int, hit: bool) -> None:
    box = np.array([[20.0, 20, 60, 50]])
    assert pointing_hit(hot(y, x), box) == hit
    assert pointing_hit(hot(y, x), region_mask(box, (60, 80))) == hit


def test_a_flat_map_and_an_empty_region_are_no_hits() -> None:
    assert not pointing_hit(np.zeros((9, 9)), np.array([[0, 0, 9, 9]]))
    assert not pointing_hit(hot(3, 3), np.zeros((0, 4)))
    assert energy_inside(np.zeros((9, 9)), np.array([[0, 0, 9, 9]])) == 0
    with pytest.raises(UserError, match=r"boxes \[n, 4\] or a bool mask of shape \(60, 80\)"):
        pointing_hit(hot(3, 3), np.zeros((60, 80)))


def test_energy_counts_overlapping_boxes_once() -> None:
    heatmap = np.ones((10, 10))
    boxes = np.array([[0, 0, 5, 4], [3, 0, 6, 4]])
    assert energy_inside(heatmap, boxes) == pytest.approx(0.24)


@given(
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 100),
)
def test_energy_in_and_out_make_one(corners: list[int], seed: int, scale: float) -> None:
    heatmap = np.random.default_rng(seed).uniform(0.1, 1, (10, 12))
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    mask = region_mask(np.array([[x1, y1, x2, y2]]), heatmap.shape)
    inside = energy_inside(heatmap, mask)
    assert inside + energy_inside(heatmap, ~mask) == pytest.approx(1)
    assert energy_inside(scale * heatmap, mask) == pytest.approx(inside)
