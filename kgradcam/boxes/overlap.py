"""Intersection over union of boxes."""

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]


def box_iou(a: Boxes, b: Boxes, inclusive: bool = False) -> npt.NDArray[np.float64]:
    """Computes the intersection over union (IoU) of every pair of boxes.

    Args:
        a: `[n, 4]`, xyxy.
        b: `[m, 4]`, xyxy.
        inclusive: Adds 1 to every width and height, for boxes that include their last pixel.

    Returns:
        float64 `[n, m]` in [0, 1]; 0 where both boxes are empty.

    Example:
        >>> box_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]]))
        array([[0.33333333]])
    """
    return paired_iou(a[:, np.newaxis], b[np.newaxis], inclusive)


def paired_iou(a: Boxes, b: Boxes, inclusive: bool = False) -> npt.NDArray[np.float64]:
    """Computes the IoU of each box of `a` with its partner in `b`.

    Args:
        a: `[..., 4]`, xyxy.
        b: `[..., 4]`, xyxy; the two shapes are broadcast.
        inclusive: See `box_iou`.

    Returns:
        float64 `[...]` in [0, 1]; 0 where both boxes are empty.
    """
    extra = 1.0 if inclusive else 0.0
    lower = np.maximum(a[..., :2], b[..., :2])
    upper = np.minimum(a[..., 2:], b[..., 2:])
    intersection = np.clip(upper - lower + extra, 0, None).prod(axis=-1)
    area_a = (a[..., 2:] - a[..., :2] + extra).prod(axis=-1)
    area_b = (b[..., 2:] - b[..., :2] + extra).prod(axis=-1)
    union = area_a + area_b - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
