"""Random variations of images: their ranges, their pixels, and their random seeds."""

import numpy as np
import pytest
import tensorflow as tf

from kgradcam.training.augmentation import (
    MEAN_COLOUR,
    Augmentation,
    augment,
    hide_patches,
)

NOTHING = Augmentation(scale=1.0, flip=False, colour=0.0)


@pytest.fixture
def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_without_variations_it_resizes(photograph) -> None:
    resized = tf.image.resize(photograph, (16, 16), antialias=True)
    np.testing.assert_array_equal(augment(photograph, 16, [0, 1], NOTHING), resized)


def test_half_of_the_images_are_mirrored(photograph) -> None:
    options = Augmentation(scale=1.0, flip=True, colour=0.0)
    plain = augment(photograph, 16, [0, 0], NOTHING).numpy()
    mirrored = 0
    for index in range(60):
        found = augment(photograph, 16, [0, index], options).numpy()
        is_mirror = np.array_equal(found, plain[:, ::-1])
        assert is_mirror or np.array_equal(found, plain)
        mirrored += is_mirror
    assert 15 < mirrored < 45


def test_equal_seeds_give_equal_images(photograph) -> None:
    options = Augmentation(scale=0.3, colour=0.3, hide=0.5)
    first, again, other = (
        augment(photograph, 16, seed, options).numpy() for seed in ([3, 4], [3, 4], [3, 5])
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (16, 16, 3)
    assert 0 <= first.min() <= first.max() <= 255


def test_crops_keep_the_smallest_area() -> None:
    # Pixel values are coordinates, so their ranges give the size of the crop.
    y, x = np.mgrid[0:100, 0:100]
    places = np.stack([y, x, y], axis=-1).astype(np.uint8)
    options = Augmentation(scale=0.5, flip=False, colour=0.0)
    shares = []
    for index in range(40):
        found = augment(places, 64, [0, index], options).numpy()
        height, width = (np.ptp(found[..., channel]) + 1 for channel in (0, 1))
        shares.append(height * width / 1e4)
        assert 0.45 < shares[-1] <= 1.0
        assert 0.7 < width / height < 1.4
    assert max(shares) - min(shares) > 0.3


def test_colours_stay_in_their_range() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    options = Augmentation(scale=1.0, flip=False, colour=0.2)
    means = [float(tf.reduce_mean(augment(grey, 8, [0, i], options))) for i in range(40)]
    assert 80 <= min(means) < 90  # A grey image varies in brightness only.
    assert 110 < max(means) <= 120


def test_hidden_patches_have_the_mean_colour() -> None:
    image = np.zeros((12, 12, 3), np.float32)
    hidden = hide_patches(image, [0, 1], 0.5, 4).numpy()
    patches = hidden.reshape(4, 3, 4, 3, 3)
    for i in range(4):
        for j in range(4):
            patch = patches[i, :, j].reshape(-1, 3)
            assert (patch == patch[0]).all()
            assert patch[0].tolist() in ([0, 0, 0], pytest.approx(MEAN_COLOUR))
    assert 2 < (patches[:, 0, :, 0, 0] > 0).sum() < 14
    np.testing.assert_array_equal(hide_patches(image, [0, 1], 0.0, 4), image)
    assert (hide_patches(image, [0, 1], 1.0, 4).numpy() == np.float32(MEAN_COLOUR)).all()
