"""Learns the value of each action in a state: double deep-Q learning with replay.

After van Hasselt, Guez and Silver, "Deep Reinforcement Learning with Double Q-learning" (AAAI
2016). Needs TensorFlow.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.refine.policy import Layers, action_values

_Floats = npt.NDArray[np.float32]
_Integers = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


class QLearner:
    """A network of action values, its replay memory, and its target network.

    Args:
        inputs: The number of values of a state.
        actions: The number of actions.
        discount: The worth of a reward one step later. At 0 the values are the rewards to expect.
        hidden: The number of units of the hidden layer.
        dropout: The share of them that a training step leaves out.
        capacity: The number of transitions that the replay memory holds; the oldest give way.
        rate: The learning rate of AdamW.
        sync: The number of training steps after which the target network is copied again.
        seed: The random seed.
    """

    def __init__(
        self,
        inputs: int,
        actions: int,
        discount: float,
        *,
        hidden: int = 128,
        dropout: float = 0.3,
        capacity: int = 40_000,
        rate: float = 1e-3,
        sync: int = 200,
        seed: int = 0,
    ) -> None:
        self._generator = np.random.default_rng(seed)
        self._discount, self._sync, self._count, self._steps = discount, sync, 0, 0
        self._states = np.zeros((capacity, inputs), np.float32)
        self._next = np.zeros((capacity, inputs if discount else 0), np.float32)
        self._actions = np.zeros(capacity, np.int64)
        self._rewards = np.zeros((capacity, actions), np.float32)
        self._ended = np.zeros(capacity, bool)
        # Layers with seeds of their own leave the global generators alone.
        self._model = keras.Sequential(
            [
                keras.Input((inputs,)),
                keras.layers.Dense(
                    hidden, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed)
                ),
                keras.layers.Dropout(dropout, seed=seed),
                keras.layers.Dense(actions, kernel_initializer="zeros"),
            ]
        )
        self._optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01)
        self._optimizer.build(self._model.trainable_variables)
        self._train = tf.function(self._train_steps, reduce_retracing=True)
        self._target = self.layers()

    def layers(self) -> Layers:
        """Returns copies of the weights."""
        arrays = self._model.get_weights()
        return tuple(zip(arrays[::2], arrays[1::2], strict=True))

    def remember(
        self,
        states: _Floats,
        actions: _Integers,
        rewards: _Floats,
        next_states: _Floats,
        ended: _Bools,
    ) -> None:
        """Stores transitions.

        Args:
            states: float32 `[transitions, inputs]`.
            actions: int64 `[transitions]`, the actions taken.
            rewards: float32 `[transitions, actions]`: that of the action taken, and of others if
                known, else NaN. With a discount, only actions that end the episode are known.
            next_states: float32 `[transitions, inputs]`.
            ended: bool `[transitions]`: no state follows.
        """
        rows = (self._count + np.arange(len(states))) % len(self._states)
        self._count += len(states)
        self._states[rows], self._actions[rows] = states, actions
        self._rewards[rows], self._ended[rows] = rewards, ended
        if self._discount:
            self._next[rows] = next_states

    def learn(self, batches: int, size: int = 256) -> float:
        """Takes training steps on random transitions, and returns their mean loss.

        Args:
            batches: The number of steps. Their values to learn are computed once, before them.
            size: The number of transitions of a step.
        """
        last = min(self._count, len(self._states))
        rows = self._generator.integers(0, last, batches * size)
        wanted = self._wanted(rows).reshape(batches, size, -1)
        loss = self._train(tf.constant(self._states[rows].reshape(batches, size, -1)), wanted)
        before, self._steps = self._steps, self._steps + batches
        if self._steps // self._sync > before // self._sync:
            self._target = self.layers()
        return float(loss)

    def _train_steps(self, states: Any, wanted: Any) -> Any:
        variables, total = self._model.trainable_variables, 0.0
        for batch in tf.range(tf.shape(states)[0]):
            with tf.GradientTape() as tape:
                loss = _loss_where_known(wanted[batch], self._model(states[batch], training=True))
            self._optimizer.apply(tape.gradient(loss, variables), variables)
            total += loss
        return total / tf.cast(tf.shape(states)[0], tf.float32)

    def _wanted(self, rows: _Integers) -> _Floats:
        """The values to learn: rewards, and of the action taken also what follows."""
        wanted = self._rewards[rows]
        if self._discount:
            # One network chooses the next action, the other values it (equation 4).
            chosen = action_values(self.layers(), self._next[rows]).argmax(axis=1)
            every = np.arange(len(rows))
            future = self._discount * action_values(self._target, self._next[rows])[every, chosen]
            wanted[every, self._actions[rows]] += np.where(self._ended[rows], 0, future)
        return wanted


def _loss_where_known(wanted: Any, values: Any) -> Any:
    """The mean Huber loss of the actions whose value is not NaN."""
    known = tf.math.is_finite(wanted)
    error = abs(tf.where(known, wanted - values, 0.0))
    loss = tf.where(error < 1, error**2 / 2, error - 0.5)
    return tf.reduce_sum(loss) / tf.reduce_sum(tf.cast(known, tf.float32))
