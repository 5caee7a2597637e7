"""The candidates of a heatmap: boxes at all heat levels, and what describes them.

A candidate is described by the heat in and around it, by its geometry in the image, and by the
probability of the class. No model is needed: stored heatmaps are enough. Features of the network in
the box are optional; see `pooling`.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.expected_iou import expected_iou
from kgradcam.boxes.levels import boxes_at_levels, level_canvas
from kgradcam.boxes.moves import move_sides
from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.options import DEFAULT_THRESHOLDS
from kgradcam.boxes.overlap import Boxes
from kgradcam.boxes.scores import Scores, score_boxes

_LOWEST_LEVEL = DEFAULT_THRESHOLDS["levels"][0]
"""Colder regions gain little, and their scores mislead a refiner of ten boxes."""
MOST = 60
"""The number of candidates of a heatmap, at most: those of the highest score."""

_CELLS = 7
_CONTEXT = 2.0  # cells cover the box and half of its size on each side
_OUTSIDE = -0.25  # the heat of cells beyond the image, which no pixel inside has


@dataclass(frozen=True)
class Candidates:
    """The candidates of one heatmap.

    Attributes:
        boxes: float64 `[candidates, 4]`, xyxy in pixels, those of the highest score first.
        scores: float64 `[candidates]`, those of `find_boxes` before suppression.
        features: float64 `[candidates, features]`, see `describe`.
        network: float64 `[candidates, features]`, see `Reduction.inputs`; `None` without a network.
    """

    boxes: Boxes
    scores: Scores
    features: npt.NDArray[np.float64]
    network: npt.NDArray[np.float64] | None = None


def find_candidates(
    heatmap: npt.ArrayLike, size: tuple[int, int], probability: float
) -> Candidates:
    """Finds and describes the candidates of a heatmap.

    Args:
        heatmap: float `[height, width]`, at any resolution, not negative.
        size: `(width, height)` of the image in pixels.
        probability: The model's probability of the class, in [0, 1].

    Example:
        >>> heatmap = np.zeros((4, 8), np.float32)
        >>> heatmap[1:3, 2:5] = 1.0
        >>> found = find_candidates(heatmap, (80, 40), probability=0.9)
        >>> found.boxes.shape, found.features.shape
        ((10, 4), (10, 152))
    """
    return candidates_on(level_canvas(heatmap, size)[0], size, probability)


def candidates_on(canvas: Heatmap, size: tuple[int, int], probability: float) -> Candidates:
    """Returns the candidates of a map that `level_canvas` made; see `find_candidates`."""
    boxes, _ = boxes_at_levels(canvas, [_LOWEST_LEVEL])
    scores = probability**0.1 * expected_iou(canvas, boxes)
    best = np.argsort(-scores, kind="stable")[:MOST]
    boxes, scores = move_sides(canvas, boxes)[best], scores[best]
    scale = np.tile(np.divide(size, canvas.shape[::-1]), 2)
    return Candidates(boxes * scale, scores, describe(canvas, boxes, probability))


def describe(canvas: Heatmap, boxes: Boxes, probability: float) -> npt.NDArray[np.float64]:
    """Returns the features of boxes of a heatmap.

    These are the mean heat of 7 x 7 cells that cover a box and half of its size on each side, and
    its square; the distances of the box to the borders, its size and shape, its density (see
    `BoxOptions.score`), the probability of the class; and the products of pairs of the latter.

    Args:
        canvas: float32 `[height, width]` in [0, 1].
        boxes: `[boxes, 4]`, xyxy in pixels of the canvas.
        probability: The model's probability of the class, in [0, 1].
    """
    height, width = canvas.shape
    low = np.clip(boxes[:, :2].round(), 0, [width - 1, height - 1])
    high = np.clip(boxes[:, 2:].round(), low + 1, [width, height])
    pixels = np.concatenate([low, high], axis=1)
    densities = score_boxes(canvas, pixels, probability, "density")
    cells = np.array([_cells(canvas, box) for box in boxes]).reshape(-1, _CELLS**2)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    shares = sides / [width, height]
    shape = [
        np.log(shares[:, 0] + 1e-3),
        np.log(shares[:, 1] + 1e-3),
        np.log(shares.prod(axis=1) + 1e-4),
        np.log(sides[:, 0] / sides[:, 1]),
        densities,
        np.sqrt(densities),
        np.full(len(boxes), probability),
        np.full(len(boxes), probability**0.2),
    ]
    rest = [
        *(boxes[:, 0] / width, boxes[:, 1] / height),
        *(1 - boxes[:, 2] / width, 1 - boxes[:, 3] / height),
        *(boxes[:, 0] <= 0, boxes[:, 1] <= 0, boxes[:, 2] >= width, boxes[:, 3] >= height),
        *(np.full(len(boxes), value) for value in (canvas.mean(), (canvas > 0.35).mean())),
    ]
    first, second = np.triu_indices(len(shape))
    products = np.array(shape)[first] * np.array(shape)[second]
    return np.concatenate([cells, cells**2, np.array([*shape, *rest]).T, products.T], axis=1)


def all_features(candidates: Candidates) -> npt.NDArray[np.float64]:
    """Returns the features of the heat and, if there are any, those of the network."""
    if candidates.network is None:
        return candidates.features
    return np.concatenate([candidates.features, candidates.network], axis=1)


def scales(features: npt.NDArray[np.float64], heat: int) -> tuple[Any, Any]:
    """Returns the means and the deviations of features, which standardize them.

    Features of the network share one deviation: components of small variance stay small, so that a
    penalty on weights removes them.

    Args:
        features: `[boxes, features]`.
        heat: The number of features of the heat, which come first.
    """
    deviation = features.std(axis=0) + 1e-6
    if features.shape[1] > heat:
        deviation[heat:] = features[:, heat:].std() + 1e-6
    return features.mean(axis=0), deviation


def _cells(canvas: Heatmap, box: Any) -> npt.NDArray[np.float32]:
    """The mean heat of the cells in and around a box, row by row."""
    fine = 2 * _CELLS
    steps = _CONTEXT * (box[2:] - box[:2]) / fine
    start = (box[:2] + box[2:]) / 2 - _CONTEXT * (box[2:] - box[:2]) / 2 + steps / 2 - 0.5
    matrix = np.array([[steps[0], 0, start[0]], [0, steps[1], start[1]]], np.float64)
    patch = cv2.warpAffine(
        canvas,
        matrix,
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=_OUTSIDE,
    )
    return patch.reshape(_CELLS, 2, _CELLS, 2).mean(axis=(1, 3)).ravel()
