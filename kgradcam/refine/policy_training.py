"""Trains a policy on episodes from the candidates of annotated images; needs TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.overlap import Boxes, box_iou
from kgradcam.progress import Advance, ignore
from kgradcam.refine.candidates import all_features, scales
from kgradcam.refine.environment import (
    ACTIONS,
    HISTORY,
    STOP,
    Actions,
    Episodes,
    ious_after,
    rewards,
)
from kgradcam.refine.policy import EPOCHS, STEPS, Policy, action_values, standardize
from kgradcam.refine.q_learning import QLearner
from kgradcam.refine.scene import Annotated

DISCOUNT = 0.9
_COMPONENTS = 256
"""The number of principal components of the features, which the network learns from."""
_STARTS = 6
"""The episodes of a heatmap in each epoch, from candidates drawn at random."""
_EXPLORING = (1.0, 0.75, 0.5, 0.25, 0.1)
"""The share of exploring actions in each epoch; the last one in those that follow."""
_BATCH = 256
_REPEATS, _LEAST = 4, 8
"""Each state is learned about so often in its epoch; and the training steps after each action."""
_UNIT = 0.1
"""The change of IoU that is a reward of 1."""

_Floats = npt.NDArray[np.float64]
_States = npt.NDArray[np.float32]


def train_policy(
    examples: Sequence[Annotated],
    discount: float = DISCOUNT,
    seed: int = 0,
    advance: Advance = ignore,
    kind: str = "change",
    epochs: int = EPOCHS,
) -> Policy:
    """Trains a policy by double deep-Q learning with guided exploration.

    An exploring action is one of those that raise the IoU with the nearest object, as in Caicedo
    and Lazebnik; where none does, it is a stop.

    Args:
        examples: Candidates, where episodes start, with objects; see `collect`.
        discount: The worth of a reward one step later. At 0, the policy learns the rewards of all
            actions in each state, and so the action of the greedy expert.
        seed: The random seed.
        advance: Called with 1 after each epoch.
        kind: The rewards, see `environment.rewards`.
        epochs: Their number.
    """
    generator = np.random.default_rng(seed)
    view = _view(examples)
    learner = QLearner(view.inputs, len(ACTIONS), discount, seed=seed)
    curve = []
    for epoch in range(epochs):
        exploring = _EXPLORING[min(epoch, len(_EXPLORING) - 1)]
        curve.append(_run_epoch(view, learner, generator, exploring, discount, kind))
        advance(1)
    return Policy(view.mean, view.deviation, view.whole(learner.layers()), tuple(curve))


@dataclass(frozen=True)
class _View:
    """The examples, and the components of the features that the network learns from."""

    examples: Sequence[Annotated]
    mean: _Floats
    deviation: _Floats
    components: _Floats  # [features, components]

    @property
    def inputs(self) -> int:
        return self.components.shape[1] + HISTORY * len(ACTIONS)

    def states(self, episodes: Episodes, rows: Actions, images: Actions) -> _States:
        """The states of some episodes; `images` are the indices of the examples of all."""
        inputs = np.zeros((len(rows), self.components.shape[1]))
        for image in np.unique(images[rows]):
            here = images[rows] == image
            seen = self.examples[int(image)].scene.describe(episodes.boxes[rows[here]])
            inputs[here] = standardize(seen, self.mean, self.deviation) @ self.components
        return np.concatenate([inputs, episodes.history()[rows]], axis=1).astype(np.float32)

    def whole(self, layers: Any) -> Any:
        """The layers of a network that takes the features themselves."""
        (weights, biases), *rest = layers
        count = self.components.shape[1]
        weights = np.concatenate([self.components @ weights[:count], weights[count:]])
        return ((weights.astype(np.float32), biases), *rest)


def _view(examples: Sequence[Annotated]) -> _View:
    features = np.concatenate([all_features(each.candidates) for each in examples])
    mean, deviation = scales(features, examples[0].candidates.features.shape[1])
    inputs = (features - mean) / deviation
    variances, vectors = np.linalg.eigh(inputs.T @ inputs / len(inputs))
    kept = slice(-_COMPONENTS, None)
    return _View(examples, mean, deviation, vectors[:, kept] / np.sqrt(variances[kept].mean()))


def _run_epoch(
    view: _View,
    learner: QLearner,
    generator: np.random.Generator,
    exploring: float,
    discount: float,
    kind: str,
) -> dict[str, float]:
    """Learns from episodes that start at some candidates of each example, and describes them."""
    images, starts, objects = _draw(view.examples, generator)
    sizes = np.array([view.examples[image].scene.size for image in images], np.float64)
    episodes, rows = Episodes(starts, sizes), np.arange(len(images))
    first, losses = ious_after(starts, sizes, objects)[0], []
    states = view.states(episodes, rows, images)
    for _ in range(STEPS):
        before, after = ious_after(episodes.boxes[rows], sizes[rows], objects[rows])
        earned = rewards(before, after, kind) / (_UNIT if kind == "change" else 1)
        chosen = action_values(learner.layers(), states).argmax(axis=1)
        explores = generator.random(len(rows)) < exploring
        chosen = np.where(explores, _guided(before, after, generator), chosen)
        actions = np.full(len(images), STOP)
        actions[rows] = chosen
        episodes.step(actions)
        if discount:  # what follows other actions is unknown, except after a stop
            known = np.arange(len(ACTIONS)) == chosen[:, np.newaxis]
            known[:, STOP] = True
            earned = np.where(known, earned, np.nan)
        goes_on = episodes.running[rows]
        rows = rows[goes_on]
        following = np.zeros_like(states)
        following[goes_on] = view.states(episodes, rows, images)
        learner.remember(states, chosen, earned.astype(np.float32), following, ~goes_on)
        losses.append(learner.learn(max(_LEAST, _REPEATS * len(states) // _BATCH), _BATCH))
        states = following[goes_on]
        if not len(rows):
            break
    return {
        "exploring": exploring,
        "loss": float(np.mean(losses)),
        "iou_before": float(first.mean()),
        "iou_after": float(ious_after(episodes.boxes, sizes, objects)[0].mean()),
        "moves": float(episodes.steps.mean()),
    }


def _draw(
    examples: Sequence[Annotated], generator: np.random.Generator
) -> tuple[Actions, Boxes, Boxes]:
    """The index of its example, the start and the object of each episode of an epoch."""
    images, starts, objects = [], [], []
    for i, each in enumerate(examples):
        boxes = generator.permutation(each.candidates.boxes)[:_STARTS]
        images += [i] * len(boxes)
        starts.append(boxes)
        objects.append(each.objects[box_iou(boxes, each.objects).argmax(axis=1)])
    return np.array(images), np.concatenate(starts), np.concatenate(objects)


def _guided(before: _Floats, after: _Floats, generator: np.random.Generator) -> Actions:
    """A random action of those that raise the IoU, or a stop where there is none."""
    good = after > before[:, np.newaxis]
    good[:, STOP] = ~good.any(axis=1)
    return (good * generator.random(good.shape)).argmax(axis=1)
