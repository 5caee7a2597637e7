"""The loss, and an optimizer with a learning rate for each layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.metrics.classification import UNKNOWN


class MaskedCrossentropy(keras.losses.Loss):  # type: ignore[misc]
    """Binary cross-entropy of several classes and heads, without what is unknown.

    Args:
        positive_weights: `[classes]`, how much a positive counts where a negative counts 1.
        head_weights: How much each head counts.
    """

    def __init__(
        self, positive_weights: npt.NDArray[np.float32], head_weights: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__(name="masked_crossentropy")
        self.positive_weights = tf.constant(positive_weights, tf.float32)
        self.head_weights = tf.constant(head_weights, tf.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image.

        Args:
            y_true: float32 `[batch, classes]` in [0, 1], or `UNKNOWN`.
            y_pred: `[batch, heads, classes]`, logits.

        Returns:
            float32 `[batch]`: the mean over the classes, an unknown one counting 0, summed over the
            heads by their weights.
        """
        known = tf.cast(y_true != UNKNOWN, tf.float32)[:, tf.newaxis]
        labels = tf.broadcast_to(y_true[:, tf.newaxis], tf.shape(y_pred))
        losses = tf.nn.weighted_cross_entropy_with_logits(
            labels, tf.cast(y_pred, tf.float32), self.positive_weights
        )
        return tf.linalg.matvec(tf.reduce_mean(losses * known, axis=2), self.head_weights)


def balanced_weights(
    labels: npt.NDArray[np.float32], most: float = 10.0
) -> npt.NDArray[np.float32]:
    """Returns the weight of a positive with which both sides of a class count equally.

    Args:
        labels: float32 `[images, classes]`, with `UNKNOWN`.
        most: The highest weight; a class is not worth more for being seen once.

    Returns:
        float32 `[classes]`, negatives over positives in [1, `most`].
    """
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    weights = negatives / np.maximum(positives, 1)
    return np.clip(weights, 1.0, most).astype(np.float32)


class LayerwiseAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW (Loshchilov & Hutter, ICLR 2019) with a share of the learning rate for each variable.

    Args:
        rates: The share, by the variable's path; 1 for those it does not name.
        **options: See `keras.optimizers.AdamW`.
    """

    def __init__(self, rates: Mapping[str, float], **options: Any) -> None:
        super().__init__(**options)
        self.rates = dict(rates)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable at its own rate."""
        # TensorFlow's variable, which has no path; Keras finds its slots by this index too.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        rate = self.rates.get(path, 1.0)
        super().update_step(gradient, variable, learning_rate * rate)
