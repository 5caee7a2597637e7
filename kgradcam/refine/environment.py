"""Localization as a Markov decision process: nine actions on a box, their rewards, an expert.

After Caicedo and Lazebnik, "Active Object Localization with Deep Reinforcement Learning" (ICCV
2015). Episodes run side by side, as rows of arrays.
"""

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes, paired_iou

ACTIONS = ("right", "left", "down", "up", "larger", "smaller", "flatter", "narrower", "stop")
STOP = len(ACTIONS) - 1
STEP = 0.2
"""The length of a step, in parts of the width and height of the current box."""
HISTORY = 10
"""The number of past actions that a state holds."""
FOUND = 0.6
"""The IoU from which the paper rewards a stop."""
STOP_REWARD = 3.0
MOVE_COST = 0.02
"""The IoU that a move must gain to be worth it; without it a policy wanders instead of stopping."""

# How far each action moves the four sides, in steps. A change of size is shared by two sides.
_MOVES = np.array(
    [
        *([1, 0, 1, 0], [-1, 0, -1, 0], [0, 1, 0, 1], [0, -1, 0, -1]),
        *([-0.5, -0.5, 0.5, 0.5], [0.5, 0.5, -0.5, -0.5]),
        *([0, 0.5, 0, -0.5], [0.5, 0, -0.5, 0], [0, 0, 0, 0]),
    ]
)
_SMALLEST = 0.02  # of the image's side

_Floats = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int64]


def successors(boxes: Boxes, sizes: _Floats) -> _Floats:
    """Returns the box after each action.

    A box is clipped at the borders of its image. It stays as it is if it would become smaller than
    a fiftieth of the image's width or height.

    Args:
        boxes: `[boxes, 4]`, xyxy in pixels.
        sizes: `[boxes, 2]`, the widths and heights of their images in pixels.

    Returns:
        float64 `[boxes, 9, 4]`, in the order of `ACTIONS`.

    Example:
        >>> moved = successors(np.array([[10.0, 10, 20, 30]]), np.array([[100.0, 100]]))
        >>> moved[0, ACTIONS.index("right")].tolist()
        [12.0, 10.0, 22.0, 30.0]
    """
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    limits = np.tile(sizes, 2)[:, np.newaxis]
    moved = boxes[:, np.newaxis] + STEP * _MOVES * sides[:, np.newaxis]
    moved = np.clip(moved, 0, limits)
    small = moved[..., 2:] - moved[..., :2] < _SMALLEST * limits[..., :2]
    return np.where(np.any(small, axis=-1, keepdims=True), boxes[:, np.newaxis], moved)


def rewards(before: _Floats, after: _Floats, kind: str) -> _Floats:
    """Returns the reward of each action.

    `"sign"`, that of the paper: a move earns 1 if it raises the IoU with the object, else -1. A
    stop earns 3 at an IoU of .6 or more, else -3 (equations 2 and 3).

    `"change"`: a move earns the change of the IoU less 0.02, and a stop nothing.

    Args:
        before: `[boxes]`, the IoU of each box with its object.
        after: `[boxes, 9]`, the IoU after each action.
        kind: `"sign"` or `"change"`.

    Returns:
        float64 `[boxes, 9]`.
    """
    change = after - before[:, np.newaxis]
    if kind == "change":
        found, stop = change - MOVE_COST, np.zeros(len(before))
    else:
        found = np.where(change > 0, 1.0, -1.0)
        stop = np.where(before >= FOUND, STOP_REWARD, -STOP_REWARD)
    found[:, STOP] = stop
    return found


class Episodes:
    """Boxes on their way, one episode each.

    Args:
        boxes: `[episodes, 4]`, xyxy in pixels, where they start.
        sizes: `[episodes, 2]`, the widths and heights of their images in pixels.

    Attributes:
        boxes: float64 `[episodes, 4]`, the boxes now.
        running: bool `[episodes]`, false after a stop.
        past: int64 `[episodes, 10]`, the last actions, the latest first; -1 where there is none.
        steps: int64 `[episodes]`, the number of moves.
    """

    def __init__(self, boxes: Boxes, sizes: _Floats) -> None:
        self.boxes, self.sizes = np.array(boxes, np.float64), np.asarray(sizes, np.float64)
        self.running = np.ones(len(boxes), bool)
        self.past = np.full((len(boxes), HISTORY), -1)
        self.steps = np.zeros(len(boxes), np.int64)

    def history(self) -> npt.NDArray[np.float32]:
        """Returns the last actions, one-hot: float32 `[episodes, 90]`, zeros where none is."""
        known = self.past[..., np.newaxis] == np.arange(len(ACTIONS))
        return known.reshape(len(self.boxes), -1).astype(np.float32)

    def step(self, actions: Actions) -> None:
        """Moves the boxes whose episode runs; ends those that stop.

        Args:
            actions: int64 `[episodes]`, indices of `ACTIONS`; those of ended episodes are ignored.
        """
        moved = successors(self.boxes, self.sizes)[np.arange(len(actions)), actions]
        now = self.running[:, np.newaxis]
        self.boxes = np.where(now, moved, self.boxes)
        latest = np.concatenate([actions[:, np.newaxis], self.past[:, :-1]], axis=1)
        self.past = np.where(now, latest, self.past)
        self.running = self.running & (actions != STOP)
        self.steps += self.running


def ious_after(boxes: Boxes, sizes: _Floats, objects: Boxes) -> tuple[_Floats, _Floats]:
    """Returns the IoU of each box with its object now, `[boxes]`, and after each action.

    Args:
        boxes: `[boxes, 4]`, xyxy in pixels.
        sizes: `[boxes, 2]`, the widths and heights of their images in pixels.
        objects: `[boxes, 4]`, the object that each box is to find.
    """
    return paired_iou(boxes, objects), paired_iou(successors(boxes, sizes), objects[:, np.newaxis])


def expert(before: _Floats, after: _Floats) -> Actions:
    """Returns the greedy action: the move of highest IoU, or the stop if none raises it.

    Args:
        before: `[boxes]`, the IoU of each box with its object.
        after: `[boxes, 9]`, the IoU after each action.
    """
    best = after.argmax(axis=1)
    return np.where(after.max(axis=1) > before, best, STOP)
