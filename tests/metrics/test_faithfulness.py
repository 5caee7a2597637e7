"""Faithfulness on models that sum pixels, where every curve is known, and on published cases."""

import keras
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kgradcam.errors import UserError
from kgradcam.heatmaps.explainer import Explanation
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import EigenCAM
from kgradcam.metrics.faithfulness import MEASURES, measure
from kgradcam.metrics.perturbation import (
    average_drop,
    deletion,
    insertion,
    occlusion_correlation,
)
from kgradcam.metrics.randomization import randomization_correlation
from kgradcam.metrics.rank_correlation import rank_correlation


def summing(height: int, width: int, channels: int = 1) -> GradCAM:
    """An explainer whose score is the sum of the image, times the number of the score: 1 or 2."""
    inputs = keras.Input((height, width, channels))
    kept = keras.layers.Conv2D(channels, 1, use_bias=False, name="kept")
    model = keras.Model(inputs, keras.layers.Identity()(kept(inputs)))
    kept.kernel.assign(np.eye(channels)[None, None])

    def score(maps):
        total = keras.ops.sum(maps, axis=(1, 2, 3))
        return keras.ops.stack([total, 2 * total], axis=1)

    return GradCAM(model, "kept", score=score)


def explained_by(heatmaps: np.ndarray) -> Explanation:
    """Two heatmaps for each image, for the two scores."""
    twice = np.stack([heatmaps, heatmaps], axis=1).astype(np.float32)
    nothing = np.full(twice.shape[:2], np.nan, np.float32)
    return Explanation(twice, nothing, nothing, [])


@pytest.mark.parametrize(
    ("image", "steps", "deleted", "inserted", "areas"),
    [
        # tests/test_metrics.py of torch-cam: two steps of two pixels ...
        ([[0.4, 0.3], [0.2, 0.1]], 2, [1, 0.3, 0], [0, 0.7, 1], (0.4, 0.6)),
        # ... and five pixels in three steps, the last one shorter.
        (
            [[0.3, 0.25, 0.2, 0.15, 0.1]],
            3,
            [1, 0.45, 0.1, 0],
            [0, 0.55, 0.9, 1],
            (0.41, 0.59),
        ),
    ],
)
def test_curves_that_torchcam_publishes(image, steps, deleted, inserted, areas) -> None:
    images = np.array(image, np.float32)[None, ..., None]
    explainer = summing(*images.shape[1:3])
    explanation = explained_by(images[..., 0])
    for function, values, area in (
        (deletion, deleted, areas[0]),
        (insertion, inserted, areas[1]),
    ):
        curve = function(explainer, images, explanation, steps=steps, baseline=0.0)
        np.testing.assert_allclose(curve.values[0, 0], values, atol=1e-6)
        np.testing.assert_allclose(curve.values[0, 1], 2 * np.array(values), atol=1e-6)
        np.testing.assert_allclose(curve.auc, [[area, 2 * area]], atol=1e-6)


def test_the_best_order_has_the_least_deletion_and_the_most_insertion() -> None:
    images = np.random.default_rng(0).uniform(size=(2, 6, 7, 1)).astype(np.float32)
    explainer = summing(6, 7)
    best, worst = (explained_by(sign * images[..., 0]) for sign in (1, -1))
    for steps in (1, 4, 42):
        low = deletion(explainer, images, best, steps=steps, baseline=0.0).auc
        high = deletion(explainer, images, worst, steps=steps, baseline=0.0).auc
        assert (low <= high + 1e-6).all()
        inserted = insertion(explainer, images, best, steps=steps, baseline=0.0).auc
        total = images.sum(axis=(1, 2, 3))
        np.testing.assert_allclose(inserted + low, total[:, None] * [1, 2], rtol=1e-4)


def test_baselines() -> None:
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    explainer = summing(8, 8, 3)
    explanation = explained_by(images.mean(axis=-1))
    totals = images.sum(axis=(1, 2, 3))
    # The mean colour leaves the sum as it was; blurring leaves it nearly so; 0.5 is 0.5.
    for baseline, end in (("mean", totals), (0.5, [96.0, 96.0])):
        curve = deletion(explainer, images, explanation, baseline=baseline)
        np.testing.assert_allclose(curve.values[:, 0, 0], totals, rtol=1e-5)
        np.testing.assert_allclose(curve.values[:, 0, -1], end, rtol=1e-5)
    blurred = deletion(explainer, images, explanation, baseline="blur").values[:, 0, -1]
    np.testing.assert_allclose(blurred, totals, rtol=0.1)
    assert (blurred != totals).all()
    with pytest.raises(UserError, match="baseline must be 'mean', 'blur' or a number. .*'blurr'"):
        deletion(explainer, images, explanation, baseline="blurr")


def test_the_average_drop_by_hand() -> None:
    """What the heat keeps of [1, 2, 3, 4] over 10, with heat [0, 1/3, 2/3, 1]: (2 + 6 + 12) / 3."""
    images = np.array([1.0, 2, 3, 4], np.float32).reshape(1, 1, 4, 1)
    explainer = summing(1, 4)
    explanation = explained_by(np.array([[[0.0, 1, 2, 3]]]))
    drop, grown = average_drop(explainer, images, explanation, baseline=0.0)
    np.testing.assert_allclose(drop, [[1 - 20 / 30] * 2], rtol=1e-6)
    assert not grown.any()
    # Over a brighter ground less heat means more light.
    drop, grown = average_drop(explainer, images, explanation, baseline=9.0)
    assert not drop.any()
    assert grown.all()


def test_occlusion_of_a_sum_is_the_sum() -> None:
    images = np.random.default_rng(0).uniform(size=(3, 14, 21, 1)).astype(np.float32)
    explainer = summing(14, 21)
    right = occlusion_correlation(explainer, images, explained_by(images[..., 0]), baseline=0.0)
    np.testing.assert_allclose(right, 1, atol=1e-9)
    wrong = occlusion_correlation(explainer, images, explained_by(-images[..., 0]), baseline=0.0)
    np.testing.assert_allclose(wrong, -1, atol=1e-9)
    flat = occlusion_correlation(explainer, images, explained_by(np.ones((3, 14, 21))))
    np.testing.assert_array_equal(flat, 0)


def classifier() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


def test_shuffled_weights_change_the_heat_and_come_back() -> None:
    model = classifier()
    images = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype(np.float32)
    cam = GradCAM(model)
    explanation = cam(images, classes=[0, [1, 2]])
    before = model.get_weights()
    found = randomization_correlation(cam, images, explanation, stages=3)
    assert found.shape == (3, 4, 2)
    assert found.max() < 1
    assert abs(found[-1].mean()) < 0.5
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    again = cam(images, classes=[0, [1, 2]])
    np.testing.assert_array_equal(again.heatmaps, explanation.heatmaps)
    assert cam.trace_count == 1


def test_shuffled_weights_need_an_explainer_that_follows_them() -> None:
    cam, images = GradCAM(classifier()).freeze(), np.zeros((1, 12, 12, 3), np.float32)
    with pytest.raises(UserError, match="a frozen explainer does not follow them"):
        randomization_correlation(cam, images, cam(images, classes=[0]))


def test_a_method_that_ignores_the_head_fails_the_sanity_check_there() -> None:
    """Eigen-CAM does not look at the last layer's weights: shuffling them changes nothing."""
    model = classifier()
    images = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype(np.float32)
    weights = len(model.weights)
    for method, fails in ((EigenCAM, True), (GradCAM, False)):
        cam = method(model)
        # One stage a weight: bias and kernel of the head are the first two.
        found = randomization_correlation(cam, images, cam(images, classes=[0]), stages=weights)
        assert (found[1] == pytest.approx(1)) == fails


def test_weights_come_back_after_a_failure() -> None:
    model = classifier()
    images = np.random.default_rng(0).normal(size=(1, 12, 12, 3)).astype(np.float32)
    cam = GradCAM(model)
    explanation = cam(images, classes=[0])
    before = model.get_weights()
    with pytest.raises(UserError, match="images must have the shape"):
        randomization_correlation(cam, images[:, :5], explanation)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_all_measures_for_groups_and_classes_per_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    cam = GradCAM(classifier(), preprocess=lambda images: images / 255)
    explanation = cam(images, classes_per_image=[[0, 1], [2, [3, 4]], [4, 0]])
    regions = [[np.array([[0, 0, 6, 6]])] * 2] * 3
    found = measure(cam, images, explanation, regions)
    assert set(found) == set(MEASURES)
    for name, values in found.items():
        assert values.shape == (3, 2), name
        assert np.isfinite(values).all(), name
    assert set(measure(cam, images, explanation)) == set(MEASURES) - {"pointing", "energy"}
    # One image and class alone gives what it gives among others.
    alone = measure(cam, images[1:2], cam(images[1:2], classes=[[3, 4]]))
    for name in ("deletion", "insertion", "average drop", "occlusion", "randomized"):
        assert alone[name][0, 0] == pytest.approx(found[name][1, 1], abs=1e-4), name
    assert cam.trace_count == 2


@given(
    arrays(np.int64, st.integers(2, 30), elements=st.integers(0, 9)),
    st.randoms(use_true_random=False),
)
def test_rank_correlation_is_spearmans(a: np.ndarray, random) -> None:
    b = np.array(random.choices(range(6), k=len(a)))
    if len(set(a.tolist())) > 1 and len(set(b.tolist())) > 1:
        expected = scipy.stats.spearmanr(a, b).statistic
    else:
        expected = 0.0
    assert rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)
