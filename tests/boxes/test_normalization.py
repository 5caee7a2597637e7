"""Heatmaps at the size of their image, in [0, 1]."""

from typing import Any

import numpy as np
import pytest

from kgradcam.boxes.normalization import normalize
from kgradcam.errors import UserError


def test_normalize_is_half_pixel_bilinear_from_zero_to_one() -> None:
    # A unit ramp over two pixels, on four: 0, 1/4, 3/4, 1, and not 0, 1/3, 2/3, 1.
    np.testing.assert_allclose(
        normalize([[2.0, 4.0], [2.0, 4.0]], (4, 3)), [[0, 0.25, 0.75, 1]] * 3, atol=1e-7
    )


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_map_without_contrast_is_zeros(value: float) -> None:
    assert normalize(np.full((2, 2), value), (3, 2)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_map_that_covers_a_part_of_the_image_is_drawn_there() -> None:
    """Two cells of two pixels on pixels 1 to 4 of six; what they do not cover is 0."""
    drawn = normalize([[2.0, 6.0]], (6, 2), (1 / 6, 0, 5 / 6, 1))
    np.testing.assert_allclose(drawn, [[0, 0, 0.25, 0.75, 1, 0]] * 2, atol=1e-6)
    # The whole image as an extent is no different from none.
    heat = np.arange(6.0).reshape(2, 3)
    nearly_whole = (0.0, 0.0, 1.0, 1.0 - 1e-9)
    np.testing.assert_allclose(
        normalize(heat, (7, 5), nearly_whole), normalize(heat, (7, 5)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("heatmap", "message"),
    [
        (np.ones((2, 2), complex), "array of real numbers. Received: complex128"),
        ([["a", "b"]], "array of real numbers. Received: <U1"),
        (np.zeros(2, "datetime64[s]"), "array of real numbers. Received: datetime64"),
        ([[1, 2], [3]], "array of real numbers. Received: setting an array element"),
        ([[1, 1e300]], "finite values. It is not finite"),
        ([[1, None]], "finite values. It is not finite"),
    ],
)
def test_other_values_than_real_numbers_are_refused(heatmap: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        normalize(heatmap, (4, 4))
