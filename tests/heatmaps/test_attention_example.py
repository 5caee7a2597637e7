"""LeGrad, an example of docs/methods.md, beside an eager tape at the attention scores."""

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgradcam import GradCAM

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def example() -> Any:
    (snippet,) = re.findall(
        r"^```python\n([^`]*?def legrad.*?)^image = ", PAGE.read_text(), re.M | re.S
    )
    namespace: dict[str, Any] = {}
    exec(compile(snippet, PAGE.name, "exec"), namespace)
    return namespace["legrad"]


class ClassToken(keras.layers.Layer):
    def call(self, tokens: Any) -> Any:
        return tf.concat([tf.ones_like(tokens[:, :1]), tokens], axis=1)


def test_legrad_by_an_eager_tape() -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 12, 3))
    rows = keras.layers.Reshape((12, 8))(keras.layers.Conv2D(8, 4, strides=4)(image))
    start = ClassToken(name="start")(rows)
    blocks = [keras.layers.MultiHeadAttention(2, 4) for _ in range(2)]
    norm, head = keras.layers.LayerNormalization(), keras.layers.Dense(3)
    tokens = start
    for block in blocks:
        tokens = keras.layers.add([tokens, block(tokens, tokens)])
    model = keras.Model(image, head(norm(tokens)[:, 0]))
    images = np.random.default_rng(0).normal(size=(2, 16, 12, 3)).astype(np.float32)
    found = GradCAM(model, layer="start", method=example())(images, classes=[2, 0]).heatmaps

    tokens = keras.Model(image, start)(images)
    maps = []
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tokens)
        for block in blocks:
            mixed, attention = block(tokens, tokens, return_attention_scores=True)
            maps.append(attention)
            tokens = tokens + mixed
        logits = head(norm(tokens)[:, 0])
        scores = [tf.reduce_sum(logits[:, c]) for c in (2, 0)]
    for j, score in enumerate(scores):
        gradients = [np.maximum(each, 0) for each in tape.gradient(score, maps)]
        total = sum(each.mean(axis=(1, 2)) for each in gradients)
        assert total.max() > 0
        expected = total[:, 1:].reshape(2, 4, 3)
        np.testing.assert_allclose(found[:, j], expected, rtol=1e-4, atol=1e-8)
