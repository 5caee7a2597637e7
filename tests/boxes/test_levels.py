"""The seed's box rules on hand-drawn maps, and against SciPy's operations, which the seed used."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgradcam.boxes.levels import BoxOptions, boxes_by_option, find_boxes, normalize, score_boxes
from kgradcam.boxes.single_threshold import fill_holes, seed_boxes
from kgradcam.errors import UsageError


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
    boxes = seed_boxes(heatmap, 0.5, smooth_radius=0)
    assert boxes.tolist() == [[4, 3, 6, 4], [1, 1, 2, 3], [5, 0, 7, 2]]


def test_diagonal_neighbours_do_not_connect() -> None:
    boxes = seed_boxes(drawn("90", "09"), 0.5, smooth_radius=0)
    assert boxes.tolist() == [[1, 1, 2, 2], [0, 0, 1, 1]]


def test_the_threshold_itself_is_cold() -> None:
    heatmap = np.array([[0.5, 0.75]], np.float32)
    assert seed_boxes(heatmap, 0.5, smooth_radius=0).tolist() == [[1, 0, 2, 1]]


def test_a_ring_holds_its_hole_and_what_lies_in_it() -> None:
    heatmap = drawn(
        "99999",
        "90009",
        "90909",
        "90009",
        "99999",
    )
    assert seed_boxes(heatmap, 0.5, smooth_radius=0).tolist() == [[0, 0, 5, 5]]


def test_a_ring_open_at_a_corner_is_closed_for_four_neighbours() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)
    # The gap is diagonal, and background connects by 4 neighbours only: it is a hole.
    assert fill_holes(mask).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]]


def test_nothing_hot_is_the_whole_image() -> None:
    assert seed_boxes(drawn("000", "010"), 0.5).tolist() == [[0, 0, 3, 2]]


def test_heat_that_smoothing_washes_out_leaves_no_box() -> None:
    heatmap = np.zeros((60, 60), np.float32)
    heatmap[30, 30] = 1.0  # above the threshold before the filter, 1/400 after it
    assert seed_boxes(heatmap, 0.5, smooth_radius=20).shape == (0, 4)
    # 1/400 above a threshold of 0.002: the filter reaches 10 pixels back and 9 ahead.
    assert seed_boxes(heatmap, 0.002, smooth_radius=20).tolist() == [[21, 21, 41, 41]]


def as_the_seed(heatmap: np.ndarray, threshold: float, radius: int) -> list[list[float]]:
    """SPEC.md's rules in SciPy's own words, in float32 throughout, as the seed's heatmaps were."""
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
    expected = as_the_seed(heatmap, 0.5, 0)
    assert seed_boxes(heatmap, 0.5, smooth_radius=0).tolist() == expected


@example(354047488, 0.3, 2)  # smoothed values of exactly float32's 0.3, which is not above 0.3
@example(4942, 0.06, 2)  # a last bit that depends on rounding between down and across
@example(8435, 0.3, 2)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.06, 0.3]), st.sampled_from([2, 5, 20]))
def test_whole_heatmaps_are_boxed_as_with_scipy(seed: int, threshold: float, radius: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 120, 2)
    coarse = generator.random((height // 32 + 1, width // 32 + 1)) ** 3
    heatmap = normalize(coarse, (int(width), int(height)))
    expected = as_the_seed(heatmap, threshold, radius)
    assert seed_boxes(heatmap, threshold, radius).tolist() == expected


def test_normalize_is_half_pixel_bilinear_from_zero_to_one() -> None:
    # A unit ramp over two pixels, on four: 0, 1/4, 3/4, 1, and not 0, 1/3, 2/3, 1.
    np.testing.assert_allclose(
        normalize([[2.0, 4.0], [2.0, 4.0]], (4, 3)), [[0, 0.25, 0.75, 1]] * 3, atol=1e-7
    )


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_map_without_contrast_is_zeros(value: float) -> None:
    assert normalize(np.full((2, 2), value), (3, 2)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_box_is_scored_by_its_share_of_the_heat() -> None:
    heatmap = drawn("9900", "0003")
    boxes = np.array([[0.0, 0, 2, 1], [3, 1, 4, 2], [0, 0, 4, 2]])
    scores = score_boxes(heatmap, boxes, probability=0.7, score="heat")
    np.testing.assert_allclose(scores, [0.7 * 18 / 21, 0.7 * 3 / 21, 0.7], rtol=1e-6)
    assert score_boxes(heatmap, boxes, 0.7, "constant").tolist() == [1, 1, 1]


def test_a_cold_map_has_no_confidence() -> None:
    cold = np.zeros((2, 2), np.float32)
    assert score_boxes(cold, np.array([[0.0, 0, 2, 2]]), 0.9, "heat").tolist() == [0]


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
    assert len(find_boxes(heatmap, (60, 20), options=BoxOptions(overlap=0.3))[0]) == 1


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
    thresholds = [0.1, 0.25, 0.6]
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
        for i in range(len(boxes)):
            for j in range(i):
                low = np.maximum(boxes[i, :2], boxes[j, :2])
                high = np.minimum(boxes[i, 2:], boxes[j, 2:])
                shared = np.clip(high - low, 0, None).prod()
                areas = (boxes[[i, j], 2:] - boxes[[i, j], :2]).prod(axis=1).sum()
                assert shared / (areas - shared) <= 0.35 + 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rules": "level"}, "Did you mean 'levels'"), ({"score": "heta"}, "Did you mean 'heat'")],
)
def test_wrong_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BoxOptions(**options)
