"""Searches an image for objects by a policy alone: no box of a heatmap is needed to start."""

from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes
from kgradcam.refine.environment import STOP
from kgradcam.refine.policy import Choose, follow
from kgradcam.refine.scene import Scene

ACTIONS_OF_IMAGE, _ACTIONS_OF_EPISODE = 200, 40
# The whole image, and three quarters of its sides at each corner, in parts of its sides.
_STARTS = np.array(
    [
        [0, 0, 1, 1],
        *([0, 0, 0.75, 0.75], [0.25, 0, 1, 0.75], [0, 0.25, 0.75, 1], [0.25, 0.25, 1, 1]),
    ]
)


def search(choose: Choose, scene: Scene, actions: int = ACTIONS_OF_IMAGE) -> Boxes:
    """Returns the boxes where episodes end that start at the whole image and at its corners.

    As in section 4.3 of Caicedo and Lazebnik, an episode ends at a stop or after 40 actions, and
    then the next one starts. A box found by a stop is marked, so that the next episode leaves it:
    inhibition of return.

    Args:
        choose: See `follow`.
        scene: The heatmap and the features.
        actions: Their number in all episodes.

    Returns:
        float64 `[episodes, 4]`, xyxy in pixels.
    """
    found = []
    for start in chain(_STARTS, chain.from_iterable(repeat(_STARTS[1:]))):
        boxes = start[np.newaxis] * np.tile(scene.size, 2)
        episode = follow(choose, scene, boxes, min(actions, _ACTIONS_OF_EPISODE))
        found.append(episode.boxes)
        actions -= int(episode.steps[0])
        if episode.past[0, 0] == STOP:
            actions -= 1
            scene = mark(scene, episode.boxes[0])
        if actions <= 0:
            break
    return np.concatenate(found)


def mark(scene: Scene, box: npt.NDArray[np.float64]) -> Scene:
    """Returns a scene with a cross over a box, of a third of its width and height.

    There the heat is 0, and so are the components of feature maps: they are those of the mean.

    Args:
        scene: The scene.
        box: `[4]`, xyxy in pixels.
    """

    def marked(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        height, width = array.shape[:2]
        xmin, ymin, xmax, ymax = box * np.tile([width, height], 2) / np.tile(scene.size, 2)
        x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, np.newaxis]
        across, down = abs(x - (xmin + xmax) / 2), abs(y - (ymin + ymax) / 2)
        cross = (across <= (xmax - xmin) / 6) | (down <= (ymax - ymin) / 6)
        inside = (across <= (xmax - xmin) / 2) & (down <= (ymax - ymin) / 2)
        changed = array.copy()
        changed[cross & inside] = 0
        return changed

    maps = [marked(each) for each in scene.maps]
    return replace(scene, canvas=marked(scene.canvas), maps=maps)
