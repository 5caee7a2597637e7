"""The IoU to expect of a box: six numbers of its heat and its rivals, weighed by six constants.

A box that several levels agree on fits better than one that a single level draws: regions that
hardly change with the level are stable (Matas et al., BMVC 2002, "Maximally stable extremal
regions"). The constants say how much that counts beside the heat. No number depends on the class,
the network or the orientation of the image.
"""

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes, box_iou
from kgradcam.boxes.scores import Scores, heat_inside

BIAS = -0.0379
WEIGHTS = (0.234, 0.0706, -0.0221, 0.0113, 0.0445, 0.179)
"""Ridge regression on the boxes of 524 photographs of VOC2012 that no table of the docs reports:
767 annotated dogs, cats, horses, sheep and cows. `benchmarks/fit_score.py` computes them."""

STABLE = 0.6
"""The IoU above which two candidates are the same region at two levels."""
MOST = 1000
"""The number of candidates of a heatmap that are compared, at most: those of the best density."""

Overlaps = npt.NDArray[np.float64]


def expected_iou(canvas: Heatmap, boxes: Boxes, overlaps: Overlaps | None = None) -> Scores:
    """Predicts the IoU of each candidate with the object nearest to it.

    Args:
        canvas: float32 `[height, width]` in [0, 1].
        boxes: `[boxes, 4]`, xyxy in whole pixels inside it: all candidates of the heatmap.
        overlaps: `[boxes, boxes]`, the IoU of all pairs, for at most `MOST` boxes. Default:
            computed here.

    Returns:
        float64 `[boxes]` in [0, 1].
    """
    # A product with BLAS would differ in the last bit with the alignment of its operands.
    return np.clip(BIAS + (describe(canvas, boxes, overlaps) * WEIGHTS).sum(axis=1), 0, 1)


def describe(
    canvas: Heatmap, boxes: Boxes, overlaps: Overlaps | None = None
) -> npt.NDArray[np.float64]:
    """Describes each candidate of a heatmap; the arguments are those of `expected_iou`.

    Returns:
        float64 `[boxes, 6]`: the share of all heat in the box; the mean heat there; the number of
        sides at the border of the image; of candidates that overlap it by `STABLE`, itself
        included; the sum over all candidates of IoU times relative density; and its own relative
        density. That is share times mean heat, divided by the highest such product. A candidate
        beyond the `MOST` densest has no other candidates.
    """
    if not len(boxes):
        return np.zeros((0, 6))
    height, width = canvas.shape
    shares, densities = heat_inside(canvas, boxes)
    relative = shares * densities
    relative /= max(relative.max(), 1e-300)  # smoothing may leave boxes without heat
    borders = (boxes == [0, 0, width, height]).sum(axis=1)
    stability, support = np.ones(len(boxes)), relative.copy()
    densest = np.sort(np.argsort(-relative, kind="stable")[:MOST])
    if overlaps is None:
        overlaps = box_iou(boxes[densest], boxes[densest])
    stability[densest] = (overlaps >= STABLE).sum(axis=1)
    support[densest] = (overlaps * relative[densest]).sum(axis=1)
    return np.stack([shares, densities, borders, stability, support, relative], axis=1)
