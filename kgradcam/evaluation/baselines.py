"""Baselines: boxes and heatmaps that need no model."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.tables import Detections, GroundTruth, sizes_by_id


def full_frame(ground_truth: GroundTruth) -> Detections:
    """Returns the whole image as the box of every class annotated on it."""
    return _one_box_each(ground_truth, inset=0.0)


def centre_box(ground_truth: GroundTruth) -> Detections:
    """Returns the centred box of half the image's area and its aspect ratio, for every class."""
    return _one_box_each(ground_truth, inset=(1 - np.sqrt(0.5)) / 2)


def _one_box_each(ground_truth: GroundTruth, inset: float) -> Detections:
    pairs = np.stack([ground_truth.image_ids, ground_truth.category_ids], axis=1)
    pairs = np.unique(pairs, axis=0)
    sizes = sizes_by_id(ground_truth.images)
    size = np.array([sizes[int(i)] for i in pairs[:, 0]], np.float64).reshape(-1, 2)
    return Detections(
        image_ids=pairs[:, 0],
        category_ids=pairs[:, 1],
        boxes=np.concatenate([inset * size, (1 - inset) * size], axis=1),
        scores=np.ones(len(pairs)),
    )


def random_heatmaps(records: Iterable[ClassHeatmap], seed: int = 0) -> Iterator[ClassHeatmap]:
    """Replaces heatmaps by random ones of the same smoothness.

    Args:
        records: Heatmaps.
        seed: The random seed.

    Yields:
        A heatmap for each, with the same power spectrum and random phases, clamped to 0 from below.
    """
    generator = np.random.default_rng(seed)
    for record in records:
        yield replace(record, heatmap=_surrogate(record.heatmap, generator))


def _surrogate(
    heatmap: npt.NDArray[np.float32], generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    noise = np.fft.rfft2(generator.normal(size=heatmap.shape))
    noise[0, 0] = abs(noise[0, 0])  # the mean keeps its sign
    spectrum = np.abs(np.fft.rfft2(heatmap)) * noise / np.abs(noise)
    drawn = np.fft.irfft2(spectrum, s=heatmap.shape)
    return np.maximum(drawn, 0).astype(np.float32)
