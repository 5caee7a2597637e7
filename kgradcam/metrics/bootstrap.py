"""Intervals by bootstrap: how far would a measure move with other images of the same kind?

A sample is as many images as there are, drawn with replacement. The boxes of an image stay
together, and the same samples serve all classes, so that their mean has an interval too, and all
runs on the same images, so that differences have.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kgradcam.metrics.average_precision import ClassResult, weighted_average_precision
from kgradcam.metrics.protocol import AveragePrecision

Samples = npt.NDArray[np.int64]
LEVEL = 0.95


def draw_samples(images: int, samples: int, seed: int = 0) -> Samples:
    """Draws how often each image is in each sample.

    Args:
        images: How many images there are.
        samples: How many samples to draw.
        seed: For the draw.

    Returns:
        int64 `[samples, images]`, each row with the sum `images`.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=samples)


def evaluate_samples(
    result: ClassResult, image_ids: Sequence[int], samples: Samples, ap: AveragePrecision
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Measures a class on each sample.

    Args:
        result: The class on all images.
        image_ids: The images in the order of the samples' columns.
        samples: See `draw_samples`.
        ap: As in `Protocol`.

    Returns:
        AP and recall, `[samples]` each; NaN where a sample has no object of the class.
    """
    order = np.argsort(image_ids)
    known = np.asarray(image_ids)[order]
    weights = samples[:, order[np.searchsorted(known, result.hit_images)]]
    totals = samples[:, order[np.searchsorted(known, result.truth_images)]].sum(axis=1)
    precision = weighted_average_precision(result.hits, weights, totals, ap)
    found = (weights * result.hits).sum(axis=1)
    recall = np.divide(found, totals, out=np.full(len(found), np.nan), where=totals > 0)
    return precision, recall


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Returns the range of the middle `LEVEL` of some values, those that are not NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_over_classes(arrays: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Returns the mean of arrays, place by place, over those that are not NaN there."""
    stacked = np.stack(arrays)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
