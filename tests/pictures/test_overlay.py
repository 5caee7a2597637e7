"""Pictures and heatmaps that `overlay` and `normalize` take, and those that they refuse."""

import numpy as np
import PIL.Image
import pytest

from kgradcam.boxes.normalization import normalize
from kgradcam.errors import UserError
from kgradcam.pictures.blending import overlay

PHOTO = np.random.default_rng(0).integers(2, 256, (20, 24, 3), dtype=np.uint8)
HEAT = np.random.default_rng(1).uniform(size=(4, 5))


@pytest.mark.parametrize(
    "image",
    [
        PHOTO.astype(np.float32),
        PHOTO.astype(np.int64),
        PHOTO / 255.0,
        PHOTO[np.newaxis],
        PIL.Image.fromarray(PHOTO),
        np.concatenate([PHOTO, PHOTO[..., :1]], axis=-1),
    ],
)
def test_one_photograph_in_any_form(image) -> None:
    np.testing.assert_array_equal(overlay(image, HEAT), overlay(PHOTO, HEAT))
    np.testing.assert_array_equal(overlay(image, np.zeros((4, 4))), PHOTO)


@pytest.mark.parametrize("image", [PHOTO[..., 0], PHOTO[..., :1], PHOTO[..., 0] / 255.0])
def test_grey_pictures(image) -> None:
    np.testing.assert_array_equal(overlay(image, HEAT), overlay(PHOTO[..., [0, 0, 0]], HEAT))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 5)), r"one picture.*shape \(8, 8, 5\)"),
        (np.zeros((2, 8, 8, 3)), r"one picture.*shape \(2, 8, 8, 3\)"),
        (PHOTO / 127.5 - 1, "values from -0.9"),
        (PHOTO * 257.0, "values from .* to 65"),
        (np.full((8, 8, 3), np.nan), "values from nan"),
        (np.zeros((8, 8, 3), complex), "integers or floats"),
    ],
)
def test_other_pictures_are_refused(image, message: str) -> None:
    with pytest.raises(UserError, match=message):
        overlay(image, HEAT)


def test_heatmaps_of_other_ranks_are_refused() -> None:
    np.testing.assert_array_equal(overlay(PHOTO, HEAT[np.newaxis]), overlay(PHOTO, HEAT))
    with pytest.raises(UserError, match=r"heatmap must be .*shape \(2, 4, 4\)"):
        overlay(PHOTO, np.zeros((2, 4, 4)))


def test_series_and_volumes_are_brought_to_their_size() -> None:
    np.testing.assert_allclose(normalize([1.0, 3.0], (4,)), [0, 0.25, 0.75, 1])
    volume = np.zeros((1, 1, 2))
    volume[..., 1] = 2.0
    found = normalize(volume, (2, 3, 4))
    assert found.shape == (2, 3, 4)
    np.testing.assert_allclose(found, np.broadcast_to([0, 0.25, 0.75, 1], (2, 3, 4)))


@pytest.mark.parametrize("size", [(4,), (4, 0), (4.5, 4), 4, (4, 4, 4)])
def test_sizes_are_checked(size) -> None:
    with pytest.raises(UserError, match=r"size must be \(width, height\)"):
        normalize(HEAT, size)
