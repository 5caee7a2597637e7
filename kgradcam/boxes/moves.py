"""Where an object ends: five constants move the sides of a candidate.

A region of heat is seldom as large as its object. Each side moves outwards by a weighted sum of
four numbers: where there is heat just outside, the object goes on.
"""

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes
from kgradcam.boxes.scores import heat_inside, heat_of

MOVE_BIAS = 0.0171
MOVE_WEIGHTS = (0.235, -0.0359, 0.0459, -0.0331)
"""Ridge regression on the boxes that `expected_iou.WEIGHTS` come from, for half of the way: a full
step gained .8 at IoU .5, but lost 1.3 at IoU .7 and on mosaics. `benchmarks/fit_score.py`."""

LARGEST_MOVE = 0.25
"""The largest move, in parts of the width or height of the box."""
OUTWARDS = (-1, -1, 1, 1)


def move_sides(canvas: Heatmap, boxes: Boxes) -> Boxes:
    """Moves the four sides of each candidate.

    Args:
        canvas: float32 `[height, width]` in [0, 1], with heat.
        boxes: `[boxes, 4]`, xyxy in whole pixels inside it.

    Returns:
        float64 `[boxes, 4]`, in fractions of pixels, inside the canvas.
    """
    numbers = describe_sides(canvas, boxes)
    moves = MOVE_BIAS + (numbers * MOVE_WEIGHTS).sum(axis=2)
    moves = np.clip(moves, -LARGEST_MOVE, LARGEST_MOVE) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    height, width = canvas.shape
    moves[boxes == [0, 0, width, height]] = 0  # an object that leaves the image ends at its border
    return np.clip(boxes + moves * OUTWARDS, 0, [width, height, width, height])


def describe_sides(canvas: Heatmap, boxes: Boxes) -> npt.NDArray[np.float64]:
    """Describes each side of each candidate; the arguments are those of `move_sides`.

    Returns:
        float64 `[boxes, 4, 4]`, for the left, top, right and lower side: the mean heat of the strip
        outside, a quarter of the box deep, with no heat beyond the canvas; the logarithms of the
        box's length across the side relative to that along it, and to the canvas; and the share of
        all heat in the box.
    """
    height, width = canvas.shape
    lengths = np.tile(boxes[:, 2:] - boxes[:, :2], 2)  # across each side
    depths = np.maximum((lengths + 2) // 4, 1)
    along = lengths[:, [1, 0, 3, 2]]
    strips = np.repeat(boxes[:, np.newaxis], 4, axis=1)
    for side in range(4):
        strips[:, side, (side + 2) % 4] = boxes[:, side]
        strips[:, side, side] += OUTWARDS[side] * depths[:, side]
    strips = np.clip(strips, 0, [width, height, width, height])
    outside = heat_of(canvas, strips.reshape(-1, 4))[0].reshape(-1, 4) / (depths * along)
    shares = np.repeat(heat_inside(canvas, boxes)[0][:, np.newaxis], 4, axis=1)
    relative = np.log(lengths / [width, height, width, height])
    return np.stack([outside, np.log(lengths / along), relative, shares], axis=2)
