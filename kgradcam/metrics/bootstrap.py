"""Bootstrap confidence intervals over images.

A sample has as many images as the data set, drawn with replacement. All boxes of an image stay
together. The same samples serve all classes, so the mean over classes has an interval. They also
serve all runs on the same images, so differences of runs have one (paired bootstrap).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.metrics.average_precision import ClassResult, weighted_average_precision
from kgradcam.metrics.protocol import AveragePrecision

Samples = npt.NDArray[np.integer[Any]]
LEVEL = 0.95
_BLOCK = 2**20
"""The most multiplicities in memory at once, detections times samples, unless one has more."""


def draw_samples(images: int, samples: int, seed: int = 0) -> Samples:
    """Draws bootstrap samples.

    Args:
        images: The number of images.
        samples: The number of samples to draw.
        seed: The random seed.

    Returns:
        int16 `[samples, images]`: the multiplicity of each image in each sample. Each row sums to
        `images`. A thousand samples of a million images have 2 GB.
    """
    generator = np.random.default_rng(seed)
    shares = np.full(images, 1 / images)
    drawn = np.empty((samples, images), np.int16)
    for i in range(samples):  # the same numbers as from one call, which has 8 bytes for each
        drawn[i] = generator.multinomial(images, shares)
    return drawn


def evaluate_samples(
    result: ClassResult, image_ids: Sequence[int], samples: Samples, ap: AveragePrecision
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Measures a class on each bootstrap sample.

    Args:
        result: The measures of the class on all images.
        image_ids: The image ids in the order of the columns of `samples`.
        samples: See `draw_samples`.
        ap: See `Protocol.ap`.

    Returns:
        AP and recall, float64 `[samples]` each; NaN where a sample has no object of the class.
    """
    order = np.argsort(image_ids)
    known = np.asarray(image_ids)[order]
    columns = order[np.searchsorted(known, result.hit_images)]
    totals = samples[:, order[np.searchsorted(known, result.truth_images)]].sum(axis=1)
    precision, found = [], []
    # In blocks: the multiplicities of all detections in all samples need not fit into memory.
    blocks = max(1, len(samples) * len(columns) // _BLOCK)
    parts = np.array_split(samples, blocks), np.array_split(totals, blocks)
    for part, ground_truths in zip(*parts, strict=True):
        weights = part[:, columns]
        precision.append(weighted_average_precision(result.hits, weights, ground_truths, ap))
        found.append(weights[:, result.hits].sum(axis=1))
    recall = np.divide(
        np.concatenate(found), totals, out=np.full(len(totals), np.nan), where=totals > 0
    )
    return np.concatenate(precision), recall


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Returns the central `LEVEL` quantile range of values without NaN; `None` if all are NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_over_classes(values: Sequence[npt.NDArray[np.float64] | float]) -> npt.NDArray[np.float64]:
    """Returns the element-wise mean of arrays or numbers over those that are not NaN there."""
    stacked = np.array(values, np.float64)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def mean_of_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each measure over the rows where it is not NaN."""
    return {name: float(mean_over_classes([row[name] for row in rows])) for name in rows[0]}


def with_mean(by_class: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """Adds the means over several classes of each measure, as the class `"mean"`."""
    mean = {"mean": mean_of_rows(list(by_class.values()))} if len(by_class) > 1 else {}
    return {**by_class, **mean}
