"""Batches of images and of cached features."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kgradcam.training import TrainingConfiguration, plan_training
from kgradcam.training.batches import cache_features


def test_batches_depend_on_the_epoch_only(configuration: TrainingConfiguration) -> None:
    pictures = plan_training(configuration).data.training
    first, again, other = (
        np.concatenate([images for images, _ in pictures.batches(view)]) for view in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    whole = [len(labels) for _, labels in pictures.batches(0, whole_batches=True)]
    assert whole == [4, 4, 4, 4]


def test_a_damaged_image_has_unknown_labels(
    configuration: TrainingConfiguration, squares: Path
) -> None:
    path = squares / "JPEGImages" / "04.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    pictures = plan_training(configuration).data.training
    labels = np.concatenate([labels for _, labels in pictures.batches(0)])
    assert len(labels) == 16
    assert (labels == -1).all(axis=1).sum() == 1
    assert [name for name, _ in pictures.dataset.left_out()] == ["04.jpg"]
    list(pictures.batches(1))
    assert len(pictures.dataset.left_out()) == 1


def test_cached_features_equal_computed_ones(
    configuration: TrainingConfiguration, tmp_path: Path
) -> None:
    plan = plan_training(replace(configuration, frozen_until="norm", cached_views=2))
    seen: list[int] = []
    features = cache_features(
        plan.data.training, plan.network.trunk, 2, tmp_path / "cache", seen.append
    )
    assert sum(seen) == 32
    assert features.maps.shape == (2, 16, 16, 16, 8)
    for view in range(2):
        batches = list(plan.data.training.batches(view))
        expected = np.concatenate([plan.network.trunk(images) for images, _ in batches])
        np.testing.assert_allclose(features.maps[view], expected, atol=2e-3)
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(features.labels[view], labels)
    assert not np.allclose(features.maps[0], features.maps[1])
    # An epoch holds the rows of its view, each once, in an order of its own.
    first, third = (
        np.concatenate([maps for maps, _ in features.batches(epoch)]) for epoch in (0, 2)
    )
    assert not np.array_equal(first, third)
    for rows in (first, third):
        np.testing.assert_array_equal(
            np.sort(rows.reshape(16, -1), axis=0),
            np.sort(features.maps[0].astype(np.float32).reshape(16, -1), axis=0),
        )
    # What is there is not computed again.
    again = cache_features(
        plan.data.training, plan.network.trunk, 2, tmp_path / "cache", seen.append
    )
    assert sum(seen) == 32
    np.testing.assert_array_equal(again.maps, features.maps)
