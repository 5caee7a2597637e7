"""Bootstrap: a sample's AP is that of a table with its images copied."""

import numpy as np
import pytest
from helpers import some_boxes

from kgradcam.metrics import bootstrap
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.bootstrap import draw_samples, evaluate_samples, interval, mean_over_classes
from kgradcam.metrics.protocol import PROTOCOLS, Protocol
from kgradcam.runs.tables import Detections, GroundTruth, Image


def copied(
    ground_truth: GroundTruth, detections: Detections, counts: np.ndarray
) -> tuple[GroundTruth, Detections]:
    """Each image as often as counted, under ids of its own."""
    images, truth_rows, found_rows, truth_ids, found_ids = [], [], [], [], []
    for image, count in zip(ground_truth.images, counts, strict=True):
        for _ in range(count):
            new = len(images) + 1
            images.append(Image(new, f"{new}.jpg", image.width, image.height))
            for rows, ids, table in (
                (truth_rows, truth_ids, ground_truth),
                (found_rows, found_ids, detections),
            ):
                here = np.flatnonzero(table.image_ids == image.id)
                rows.extend(here)
                ids.extend([new] * len(here))
    chosen = detections.select(np.array(found_rows, int))
    return (
        GroundTruth(
            tuple(images),
            ground_truth.categories,
            np.array(truth_ids, np.int64),
            ground_truth.category_ids[truth_rows],
            ground_truth.boxes[truth_rows],
            ground_truth.difficult[truth_rows],
        ),
        Detections(np.array(found_ids, np.int64), chosen.category_ids, chosen.boxes, chosen.scores),
    )


@pytest.mark.parametrize("rules", PROTOCOLS.values(), ids=lambda rules: rules.name)
def test_a_sample_is_a_table_of_copies(rules: Protocol) -> None:
    for seed in range(8):
        ground_truth, detections = some_boxes(seed, ties=False, difficult=True)
        samples = draw_samples(12, 5, seed)
        image_ids = [image.id for image in ground_truth.images]
        for i, result in enumerate(evaluate(ground_truth, detections, rules, [0.5])):
            precision, recall = evaluate_samples(result, image_ids, samples, rules.ap)
            for sample in range(5):
                tables = copied(ground_truth, detections, samples[sample])
                expected = evaluate(*tables, rules, [0.5])[i]
                assert precision[sample] == pytest.approx(expected.ap, nan_ok=True)
                assert recall[sample] == pytest.approx(expected.recall, nan_ok=True)


def test_the_order_of_images_does_not_matter() -> None:
    ground_truth, detections = some_boxes(0, ties=False)
    samples = draw_samples(12, 50)
    result = evaluate(ground_truth, detections, PROTOCOLS["voc2010"], [0.5])[0]
    image_ids = np.arange(1, 13)
    order = np.random.default_rng(0).permutation(12)
    before = evaluate_samples(result, image_ids.tolist(), samples, "area")[0]
    after = evaluate_samples(result, image_ids[order].tolist(), samples[:, order], "area")[0]
    np.testing.assert_allclose(after, before)


@pytest.mark.parametrize("rules", PROTOCOLS.values(), ids=lambda rules: rules.name)
def test_blocks_of_samples_change_no_bit(rules: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    ground_truth, detections = some_boxes(1, ties=False)
    samples = draw_samples(12, 50)
    result = evaluate(ground_truth, detections, rules, [0.5])[0]
    image_ids = list(range(1, 13))
    whole = evaluate_samples(result, image_ids, samples, rules.ap)
    for most in (1, 70, 400):  # a detection a block, fewer than a sample, several samples
        monkeypatch.setattr(bootstrap, "_BLOCK", most)
        np.testing.assert_array_equal(evaluate_samples(result, image_ids, samples, rules.ap), whole)


def test_small_integers_change_no_bit() -> None:
    ground_truth, detections = some_boxes(1, ties=True)
    result = evaluate(ground_truth, detections, PROTOCOLS["voc2010"], [0.3])[0]
    ids, samples = [image.id for image in ground_truth.images], draw_samples(12, 50)
    assert samples.dtype == np.int16
    for ap in ("area", "11"):
        one, other = (
            evaluate_samples(result, ids, each, ap) for each in (samples, samples.astype(int))
        )
        np.testing.assert_array_equal(one, other)


def test_samples_are_as_large_as_the_set_and_repeatable() -> None:
    samples = draw_samples(40, 100, seed=3)
    assert (samples.sum(axis=1) == 40).all()
    np.testing.assert_array_equal(samples, draw_samples(40, 100, seed=3))
    assert (samples != draw_samples(40, 100, seed=4)).any()
    shares = np.full(40, 1 / 40)
    at_once = np.random.default_rng(3).multinomial(40, shares, size=100)
    np.testing.assert_array_equal(samples, at_once)


def test_intervals_and_means_leave_out_what_is_undefined() -> None:
    assert interval(np.array([np.nan, *np.arange(1001)])) == pytest.approx((25, 975))
    assert interval(np.array([np.nan])) is None
    values = [np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])]
    np.testing.assert_array_equal(mean_over_classes(values), [2, 5, np.nan])


def test_the_interval_covers_what_it_should() -> None:
    """A share of images: the interval is the binomial one."""
    generator = np.random.default_rng(0)
    right = generator.random(400) < 0.3
    ids = np.arange(400)
    ground_truth = GroundTruth(
        tuple(Image(int(i), f"{i}.jpg", 9, 9) for i in ids),
        ("cat",),
        ids,
        np.ones(400, np.int64),
        np.tile([0.0, 0, 9, 9], (400, 1)),
        np.zeros(400, bool),
    )
    found = Detections(
        ids[right], np.ones(right.sum(), np.int64), np.tile([0.0, 0, 9, 9], (right.sum(), 1)),
        np.ones(right.sum()),
    )  # fmt: skip
    (result,) = evaluate(ground_truth, found, PROTOCOLS["voc2010"], [0.5])
    _, recall = evaluate_samples(result, ids.tolist(), draw_samples(400, 4000), "area")
    low, high = interval(recall)
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert low == pytest.approx(right.mean() - half, abs=0.006)
    assert high == pytest.approx(right.mean() + half, abs=0.006)
