"""A policy: moves each box of a heatmap in steps, until it stops or the steps are used up."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes
from kgradcam.refine.candidates import Candidates, all_features
from kgradcam.refine.environment import ACTIONS, HISTORY, STOP, Actions, Episodes
from kgradcam.refine.scene import Scene

EPOCHS = 20
"""The number of epochs of a training."""
STEPS = 10
"""The number of actions on a box of a heatmap, at most."""

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
Choose = Callable[[Candidates, _Floats], Actions]
"""Returns the actions of boxes, int64 `[boxes]`, given their features and their histories."""
Layers = tuple[tuple[_Floats, _Floats], ...]
"""The weights `[inputs, units]` and biases `[units]` of each layer."""


def action_values(layers: Layers, states: _Floats) -> _Floats:
    """Returns the values of actions, float32 `[states, actions]`: ReLU after all layers but one."""
    values = states
    for weights, biases in layers[:-1]:
        values = np.maximum(values @ weights + biases, 0)
    weights, biases = layers[-1]
    return values @ weights + biases


def standardize(seen: Candidates, mean: _Doubles, deviation: _Doubles) -> _Doubles:
    """Returns the features of boxes in deviations from their mean, at most 10.

    A feature that hardly varies among the starts may do so on the way.
    """
    return np.clip((all_features(seen) - mean) / deviation, -10, 10)


def follow(choose: Choose, scene: Scene, boxes: Boxes, steps: int = STEPS) -> Episodes:
    """Runs an episode from each box.

    Args:
        choose: Takes the actions.
        scene: The heatmap and the features.
        boxes: `[boxes, 4]`, xyxy in pixels.
        steps: The number of actions of an episode, at most.
    """
    episodes = Episodes(boxes, np.tile(np.asarray(scene.size, np.float64), (len(boxes), 1)))
    for _ in range(steps):
        running = episodes.running
        if not running.any():
            break
        actions = np.full(len(boxes), STOP)
        seen = scene.describe(episodes.boxes[running])
        actions[running] = choose(seen, episodes.history()[running])
        episodes.step(actions)
    return episodes


@dataclass(frozen=True)
class Policy:
    """Takes the action of the highest value, by a network of one hidden layer.

    Attributes:
        mean: float64 `[features]`, subtracted from features.
        deviation: float64 `[features]`, divides them.
        layers: The network; its inputs are the features and the history.
        curve: For each epoch of the training the share of exploring actions, the loss, the mean IoU
            before and after its episodes, and their mean number of moves.
    """

    mean: _Doubles
    deviation: _Doubles
    layers: Layers
    curve: tuple[dict[str, float], ...] = ()

    def __call__(self, scene: Scene, candidates: Candidates) -> Candidates:
        """Returns the boxes where the episodes from candidates end, with the scores of these."""
        if not len(candidates.boxes):
            return candidates
        ends = scene.describe(follow(self.choose, scene, candidates.boxes).boxes)
        return replace(ends, scores=candidates.scores)

    def choose(self, seen: Candidates, history: _Floats) -> Actions:
        """Returns the actions of boxes, given their features and their histories."""
        inputs = standardize(seen, self.mean, self.deviation).astype(np.float32)
        states = np.concatenate([inputs, history], axis=1)
        return action_values(self.layers, states).argmax(axis=1)

    def as_json(self) -> dict[str, Any]:
        """Returns what `policy_of` reads; weights are little-endian float32 in base64."""
        return {
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "layers": [[_encode(weights), _encode(biases)] for weights, biases in self.layers],
            "curve": list(self.curve),
        }


def policy_of(content: Any) -> Policy:
    """Returns the policy that `Policy.as_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: It is something else.
    """
    mean, deviation = (np.array(content[name], np.float64) for name in ("mean", "deviation"))
    inputs = len(mean) + HISTORY * len(ACTIONS)
    layers = []
    for weights, biases in content["layers"]:
        bias = _decode(biases)
        layers.append((_decode(weights).reshape(inputs, len(bias)), bias))
        inputs = len(bias)
    arrays: list[Any] = [mean, deviation, *(array for layer in layers for array in layer)]
    finite = all(np.isfinite(array).all() for array in arrays)
    if inputs != len(ACTIONS) or mean.shape != deviation.shape or not finite:
        raise ValueError("its policy has another shape, or numbers that are not finite")
    return Policy(mean, deviation, tuple(layers), tuple(content["curve"]))


def _encode(array: _Floats) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _decode(text: str) -> _Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
