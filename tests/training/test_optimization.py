"""The masked loss and the learning rates of layers, computed by hand."""

import keras
import numpy as np
import pytest

from kgradcam.training.optimization import LayerwiseAdamW, MaskedCrossentropy, balanced_weights


def softplus(x: float) -> float:
    return float(np.log1p(np.exp(x)))


def test_the_loss_by_hand() -> None:
    loss = MaskedCrossentropy(np.array([3, 1, 1], np.float32))
    labels = np.array([[1, 0, -1], [1, 1, 0]], np.float32)
    logits = np.array([[0.5, 2.0, 7.0], [-1.0, 0.0, 7.0]], np.float32)
    # -log sigmoid(x) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x). Unknown labels count 0.
    first = (3 * softplus(-0.5) + softplus(2.0)) / 3
    second = (3 * softplus(1.0) + softplus(0.0) + softplus(7.0)) / 3
    np.testing.assert_allclose(loss.call(labels, logits), [first, second], rtol=1e-6)
    assert float(loss(labels, logits)) == pytest.approx((first + second) / 2, rel=1e-6)


def test_balanced_weights_by_hand() -> None:
    labels = np.array([[1, 1, -1], [0, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    assert balanced_weights(labels).tolist() == [3.0, 1.0, 3.0]
    assert balanced_weights(labels, highest=2.0).tolist() == [2.0, 1.0, 2.0]


def test_each_variable_has_its_learning_rate() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(1, name="fast")(keras.layers.Dense(2, name="slow")(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(
        LayerwiseAdamW({"slow/kernel": 0.01}, learning_rate=0.1, weight_decay=0.0), "mse",
        jit_compile=False,
    )  # fmt: skip
    before = {each.path: each.numpy() for each in model.variables}
    model.fit(np.array([[1.0, 2.0]]), np.array([[100.0]]), verbose=0)
    # Adam's first step equals the learning rate for any gradient.
    for path, step in (("slow/kernel", 0.001), ("slow/bias", 0.1), ("fast/kernel", 0.1)):
        after = next(each.numpy() for each in model.variables if each.path == path)
        np.testing.assert_allclose(np.abs(after - before[path]), step, rtol=1e-3)
