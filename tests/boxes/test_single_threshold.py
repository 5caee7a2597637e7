"""The rules of the 2021 scripts on hand-drawn maps, and against SciPy, which they used."""

import numpy as np
import scipy.ndimage
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.regions import fill_holes
from kgradcam.boxes.single_threshold import single_threshold_boxes


def drawn(*rows: str) -> np.ndarray:
    """A heatmap from digits: '0' is 0.0, '9' is 0.9."""
    return np.array([[int(digit) / 10 for digit in row] for row in rows], np.float32)


def test_a_box_for_each_component_the_last_in_raster_order_first() -> None:
    """A box from a heatmap: zhoubolei/CAM #18 #31, keras-vis #96, tf-explain #168."""
    heatmap = drawn(
        "0000099",
        "0900099",
        "0900000",
        "0000990",
    )
    boxes = single_threshold_boxes(heatmap, 0.5, smooth_radius=0)
    assert boxes.tolist() == [[4, 3, 6, 4], [1, 1, 2, 3], [5, 0, 7, 2]]


def test_diagonal_neighbours_do_not_connect() -> None:
    boxes = single_threshold_boxes(drawn("90", "09"), 0.5, smooth_radius=0)
    assert boxes.tolist() == [[1, 1, 2, 2], [0, 0, 1, 1]]


def test_the_threshold_itself_is_cold() -> None:
    heatmap = np.array([[0.5, 0.75]], np.float32)
    assert single_threshold_boxes(heatmap, 0.5, smooth_radius=0).tolist() == [[1, 0, 2, 1]]


def test_a_ring_holds_its_hole_and_what_lies_in_it() -> None:
    heatmap = drawn(
        "99999",
        "90009",
        "90909",
        "90009",
        "99999",
    )
    assert single_threshold_boxes(heatmap, 0.5, smooth_radius=0).tolist() == [[0, 0, 5, 5]]


def test_a_ring_open_at_a_corner_is_closed_for_four_neighbours() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)
    # The gap is diagonal, and background connects by 4 neighbours only: it is a hole.
    assert fill_holes(mask).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]]


def test_nothing_hot_is_the_whole_image() -> None:
    assert single_threshold_boxes(drawn("000", "010"), 0.5).tolist() == [[0, 0, 3, 2]]


def test_heat_that_smoothing_washes_out_leaves_no_box() -> None:
    heatmap = np.zeros((60, 60), np.float32)
    heatmap[30, 30] = 1.0  # above the threshold before the filter, 1/400 after it
    assert single_threshold_boxes(heatmap, 0.5, smooth_radius=20).shape == (0, 4)
    # 1/400 above a threshold of 0.002: the filter reaches 10 pixels back and 9 ahead.
    assert single_threshold_boxes(heatmap, 0.002, smooth_radius=20).tolist() == [[21, 21, 41, 41]]


def with_scipy(heatmap: np.ndarray, threshold: float, radius: int) -> list[list[float]]:
    """The rules by SciPy's operations, in float32 throughout, as in the scripts."""
    height, width = heatmap.shape
    if not (heatmap > threshold).any():
        return [[0, 0, width, height]]
    smooth = scipy.ndimage.uniform_filter(heatmap, radius) if radius else heatmap
    labels, _ = scipy.ndimage.label(scipy.ndimage.binary_fill_holes(smooth > threshold))
    slices = scipy.ndimage.find_objects(labels)
    return [[x.start, y.start, x.stop, y.stop] for y, x in reversed(slices)]


@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)),
)
def test_components_are_those_of_scipy(mask: np.ndarray) -> None:
    heatmap = mask.astype(np.float32)
    expected = with_scipy(heatmap, 0.5, 0)
    assert single_threshold_boxes(heatmap, 0.5, smooth_radius=0).tolist() == expected


@example(354047488, 0.3, 2)  # smoothed values of exactly float32's 0.3, which is not above 0.3
@example(4942, 0.06, 2)  # a last bit that depends on rounding between columns and rows
@example(8435, 0.3, 2)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.06, 0.3]), st.sampled_from([2, 5, 20]))
def test_whole_heatmaps_are_boxed_as_with_scipy(seed: int, threshold: float, radius: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 120, 2)
    coarse = generator.random((height // 32 + 1, width // 32 + 1)) ** 3
    heatmap = normalize(coarse, (int(width), int(height)))
    expected = with_scipy(heatmap, threshold, radius)
    assert single_threshold_boxes(heatmap, threshold, radius).tolist() == expected
