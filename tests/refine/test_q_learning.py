"""Q-learning on decision processes whose values are known by hand."""

import numpy as np
import pytest

from kgradcam.refine.q_learning import QLearner, action_values

LEFT, RIGHT, STOP = range(3)
LENGTH = 5
DISCOUNT = 0.9


def chain(learner: QLearner, seed: int = 0, known: float = np.nan) -> None:
    """Random steps on five fields. The last one is worth a stop of 1, any other one of 0.2."""
    generator = np.random.default_rng(seed)
    fields = generator.integers(0, LENGTH, 2000)
    actions = generator.integers(0, 3, 2000)
    following = np.clip(fields + np.array([-1, 1, 0])[actions], 0, LENGTH - 1)
    rewards = np.full((2000, 3), known)
    rewards[np.arange(2000), actions] = 0
    stops = np.where(fields == LENGTH - 1, 1.0, 0.2)
    rewards[:, STOP] = np.where((actions == STOP) | np.isfinite(known), stops, np.nan)
    states = np.eye(LENGTH, dtype=np.float32)
    learner.remember(
        states[fields], actions, rewards.astype(np.float32), states[following], actions == STOP
    )


def test_values_of_a_chain_are_those_of_bellman() -> None:
    learner = QLearner(LENGTH, 3, DISCOUNT, hidden=16, dropout=0.0, rate=0.02, sync=20)
    chain(learner)
    for _ in range(60):
        learner.learn(20, size=64)
    best = DISCOUNT ** np.arange(LENGTH)[::-1]  # right to the end, and a stop there
    right = DISCOUNT * np.append(best[1:], best[-1])
    left = DISCOUNT * np.append(best[:1], best[:-1])
    stop = np.where(np.arange(LENGTH) == LENGTH - 1, 1, 0.2)
    found = action_values(learner.layers(), np.eye(LENGTH, dtype=np.float32))
    np.testing.assert_allclose(found, np.array([left, right, stop]).T, atol=0.05)
    assert found.argmax(axis=1).tolist() == [RIGHT] * 4 + [STOP]


def test_without_a_discount_values_are_the_rewards() -> None:
    learner = QLearner(LENGTH, 3, 0.0, hidden=16, dropout=0.0, rate=0.01)
    chain(learner, known=0.0)
    learner.learn(300, size=64)
    found = action_values(learner.layers(), np.eye(LENGTH, dtype=np.float32))
    np.testing.assert_allclose(found[:, STOP], [0.2] * 4 + [1], atol=0.05)
    np.testing.assert_allclose(found[:, :2], 0, atol=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_gives_the_same_weights(seed: int) -> None:
    def weights() -> list[np.ndarray]:
        learner = QLearner(LENGTH, 3, DISCOUNT, hidden=8, seed=seed)
        chain(learner)
        learner.learn(30)
        return [array for layer in learner.layers() for array in layer]

    for first, second in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_oldest_transitions_give_way() -> None:
    """A memory of two: of three transitions the first is forgotten, so only 2 and 3 are learned."""
    learner = QLearner(3, 1, 0.0, hidden=8, dropout=0.0, rate=0.05, capacity=2)
    states = np.eye(3, dtype=np.float32)
    for i, reward in enumerate([-5.0, 2.0, 3.0]):
        learner.remember(
            states[[i]],
            np.zeros(1, int),
            np.array([[reward]], np.float32),
            states[[i]],
            np.ones(1, bool),
        )
    learner.learn(200, size=16)
    found = action_values(learner.layers(), states)[:, 0]
    np.testing.assert_allclose(found[1:], [2, 3], atol=0.1)
    assert found[0] > 0
