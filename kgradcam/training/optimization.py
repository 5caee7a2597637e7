"""The training loss, and AdamW with a learning rate for each layer."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from typing_extensions import override

from kgradcam.metrics.classification import UNKNOWN


class MaskedCrossentropy(keras.losses.Loss):  # type: ignore[misc]
    """Binary cross-entropy over several classes that ignores unknown labels.

    Args:
        positive_weights: float32 `[classes]`, the weight of a positive label. A negative weighs 1.
    """

    def __init__(self, positive_weights: npt.NDArray[np.float32]) -> None:
        super().__init__(name="masked_crossentropy")
        self.positive_weights = tf.constant(positive_weights, tf.float32)

    @override
    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image.

        Args:
            y_true: float32 `[batch, classes]`: 0, 1 or `UNKNOWN`.
            y_pred: Logits `[batch, classes]`.

        Returns:
            float32 `[batch]`, the mean over all classes. An unknown label contributes 0.
        """
        known = tf.cast(y_true != UNKNOWN, tf.float32)
        losses = tf.nn.weighted_cross_entropy_with_logits(
            y_true, tf.cast(y_pred, tf.float32), self.positive_weights
        )
        return tf.reduce_mean(losses * known, axis=1)


def balanced_weights(
    labels: npt.NDArray[np.float32], highest: float = 10.0
) -> npt.NDArray[np.float32]:
    """Returns the weight of a positive label that balances both labels of each class.

    Args:
        labels: float32 `[images, classes]`: 0, 1 or `UNKNOWN`.
        highest: Upper bound of the weights, so that one rare image does not dominate a class.

    Returns:
        float32 `[classes]`, negatives divided by positives, clamped to [1, `highest`].
    """
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    weights = negatives / np.maximum(positives, 1)
    return np.clip(weights, 1.0, highest).astype(np.float32)


class LayerwiseAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW (Loshchilov & Hutter, ICLR 2019) with a learning rate for each variable.

    Biases and the parameters of normalizations are not decayed.

    Args:
        rates: Factor on the learning rate by variable path. 1 for variables that are not listed.
        **options: Passed to `keras.optimizers.AdamW`.
    """

    def __init__(self, rates: Mapping[str, float], **options: Any) -> None:
        super().__init__(**options)
        self.rates = dict(rates)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

    @override
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # `variable` is TensorFlow's and has no path. Keras finds its slots by the same index.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        rate = self.rates.get(path, 1.0)
        super().update_step(gradient, variable, learning_rate * rate)
