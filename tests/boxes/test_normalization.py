"""Heatmaps at the size of their image, in [0, 1]."""

import numpy as np
import pytest

from kgradcam.boxes.normalization import normalize


def test_normalize_is_half_pixel_bilinear_from_zero_to_one() -> None:
    # A unit ramp over two pixels, on four: 0, 1/4, 3/4, 1, and not 0, 1/3, 2/3, 1.
    np.testing.assert_allclose(
        normalize([[2.0, 4.0], [2.0, 4.0]], (4, 3)), [[0, 0.25, 0.75, 1]] * 3, atol=1e-7
    )


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_map_without_contrast_is_zeros(value: float) -> None:
    assert normalize(np.full((2, 2), value), (3, 2)).tolist() == [[0, 0, 0], [0, 0, 0]]
