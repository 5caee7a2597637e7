"""Regions by contours where no two pixels touch at a corner, and by labels elsewhere."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgradcam.boxes.regions import Saddles, region_boxes

heatmaps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.integers(0, 4).map(lambda i: np.float32(i / 4)),
)


def test_a_saddle_is_at_the_levels_between_its_diagonals() -> None:
    for heatmap in ([[0.9, 0.2], [0.4, 0.7]], [[0.2, 0.9], [0.7, 0.4]]):
        saddles = Saddles(np.array(heatmap, np.float32))
        levels = [0.3, 0.4, 0.5, 0.6999, 0.7, 0.8]
        assert [saddles.at(level) for level in levels] == [False, True, True, True, False, False]
    assert not Saddles(np.array([[0.9, 0.2], [0.7, 0.4]], np.float32)).at(0.5)


@given(heatmaps, st.sampled_from([0, 0.25, 0.3, 0.5, 0.9]))
def test_saddles_are_all_pairs_of_pixels_that_touch_at_a_corner_only(
    heatmap: np.ndarray, level: float
) -> None:
    hot = heatmap > np.float32(level)
    blocks = [
        hot[y : y + 2, x : x + 2].ravel().tolist()
        for y in range(hot.shape[0] - 1)
        for x in range(hot.shape[1] - 1)
    ]
    crossed = [True, False, False, True] in blocks or [False, True, True, False] in blocks
    assert Saddles(heatmap).at(level) == crossed


@pytest.mark.parametrize("filled", [True, False])
@given(heatmaps, st.sampled_from([0, 0.25, 0.5]))
def test_contours_and_labels_give_the_regions_of_scipy(
    filled: bool, heatmap: np.ndarray, level: float
) -> None:
    hot = heatmap > np.float32(level)
    if not hot.any():
        return
    regions = scipy.ndimage.binary_fill_holes(hot) if filled else hot
    slices = scipy.ndimage.find_objects(scipy.ndimage.label(regions)[0])
    expected = [[x.start, y.start, x.stop, y.stop] for y, x in slices]
    mask = hot.astype(np.uint8)
    assert region_boxes(mask, True, filled).tolist() == expected
    if not Saddles(heatmap).at(level):
        assert region_boxes(mask, False, filled).tolist() == expected


def test_a_region_in_a_hole_counts_unless_holes_are_filled() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 1:8], mask[2:7, 2:7], mask[4, 4] = 1, 0, 1
    assert region_boxes(mask, False, filled=False).tolist() == [[1, 1, 8, 8], [4, 4, 5, 5]]
    assert region_boxes(mask, False, filled=True).tolist() == [[1, 1, 8, 8]]
