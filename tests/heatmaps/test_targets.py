"""Scores beyond one class, with heatmaps computed by hand."""

from typing import Any

import keras
import numpy as np
import pytest

from kgradcam import GradCAM, targets
from kgradcam.errors import UserError
from kgradcam.heatmaps import HiResCAM

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.uniform(-1, 1, (2, 4, 5, 3)).astype(np.float32)
KERNEL = GENERATOR.normal(size=(3, 4)).astype(np.float32)
PLACES = 20


def on_means(activation: Any = None, units: int = 4, pooled_only: bool = False) -> keras.Model:
    """Maps that are the image itself, their mean, and a linear head `KERNEL`."""
    image = keras.Input((4, 5, 3))
    maps = keras.layers.Activation("linear", name="maps")(image)
    x = keras.layers.GlobalAveragePooling2D()(maps)
    if pooled_only:
        return keras.Model(image, x)
    model = keras.Model(image, keras.layers.Dense(units, activation, use_bias=False)(x))
    model.layers[-1].set_weights([KERNEL[:, :units]])
    return model


def on_places(activation: str, flat: bool = False) -> keras.Model:
    """Classes of each place: the maps times `KERNEL`."""
    image = keras.Input((4, 5, 3))
    maps = keras.layers.Activation("linear", name="maps")(image)
    head = keras.layers.Conv2D(4, 1, activation=activation, use_bias=False)
    outputs = head(maps)
    model = keras.Model(image, keras.layers.Reshape((20, 4))(outputs) if flat else outputs)
    head.set_weights([KERNEL[None, None]])
    return model


def heat(weights: np.ndarray) -> np.ndarray:
    """ReLU of the maps weighted by `[channels]` or `[batch, channels]`."""
    rows = np.broadcast_to(weights, (2, 3))
    return np.maximum(np.einsum("bhwk,bk->bhw", IMAGES, rows), 0)


def explained(model: keras.Model, score: Any, method: Any = GradCAM) -> Any:
    return method(model, "maps", score=score)(IMAGES)


def test_what_raises_and_what_lowers_a_value() -> None:
    e = explained(on_means(), targets.regression(2))
    values = IMAGES.mean((1, 2)) @ KERNEL
    np.testing.assert_allclose(e.scores, np.stack([values[:, 2], -values[:, 2]], 1), rtol=1e-5)
    np.testing.assert_allclose(e.heatmaps[:, 0], heat(KERNEL[:, 2]) / PLACES, atol=1e-6)
    np.testing.assert_allclose(e.heatmaps[:, 1], heat(-KERNEL[:, 2]) / PLACES, atol=1e-6)
    # By how much: with a linear head both heatmaps sum up to the value.
    total = e.heatmaps.sum((2, 3))
    np.testing.assert_allclose(total[:, 0] - total[:, 1], values[:, 2], rtol=1e-4)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_the_difference_of_classes(activation: Any) -> None:
    e = explained(on_means(activation), targets.difference(1, [0, 3], weight=0.6))
    weights = KERNEL[:, 1] - 0.6 * (KERNEL[:, 0] + KERNEL[:, 3]) / 2
    np.testing.assert_allclose(e.heatmaps[:, 0], heat(weights) / PLACES, atol=1e-6)
    np.testing.assert_allclose(e.scores[:, 0], IMAGES.mean((1, 2)) @ weights, rtol=1e-4)
    plain = explained(on_means(activation), targets.difference(1, 0, weight=0))
    of_class = GradCAM(on_means(activation), "maps")(IMAGES, [1])
    np.testing.assert_allclose(plain.heatmaps, of_class.heatmaps, atol=1e-7)


def test_the_absence_of_a_class() -> None:
    e = explained(on_means("sigmoid", 1), targets.absence())
    np.testing.assert_allclose(e.heatmaps[:, 0], heat(-KERNEL[:, 0]) / PLACES, atol=1e-6)
    other = GradCAM(on_means("sigmoid", 1), "maps")(IMAGES, ["negative"])
    np.testing.assert_allclose(e.heatmaps, other.heatmaps, atol=1e-7)
    e = explained(on_means("sigmoid"), targets.absence(3))
    np.testing.assert_allclose(e.heatmaps[:, 0], heat(-KERNEL[:, 3]) / PLACES, atol=1e-6)


def test_similarity_to_embeddings() -> None:
    wanted = GENERATOR.normal(size=(2, 3))
    e = explained(on_means(pooled_only=True), targets.similarity(wanted))
    found = IMAGES.mean((1, 2))
    for j, embedding in enumerate(wanted / np.linalg.norm(wanted, axis=1, keepdims=True)):
        length = np.linalg.norm(found, axis=1, keepdims=True)
        cosine = found @ embedding / length[:, 0]
        np.testing.assert_allclose(e.scores[:, j], cosine, rtol=1e-4)
        # d cos / d z = (e - cos z / |z|) / |z|
        slope = (embedding - cosine[:, None] * found / length) / length
        np.testing.assert_allclose(e.heatmaps[:, j], heat(slope / PLACES), atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "linear", "sigmoid"])
def test_a_class_of_a_segmentation(activation: str) -> None:
    region = np.zeros((4, 5), bool)
    region[1:3, 2:5] = True
    e = explained(on_places(activation), targets.segmentation(2, region), HiResCAM)
    inside = np.maximum(IMAGES @ KERNEL[:, 2], 0) * region
    np.testing.assert_allclose(e.heatmaps[:, 0], inside, atol=1e-6)
    e = explained(on_places(activation), targets.segmentation(2, region))
    np.testing.assert_allclose(e.heatmaps[:, 0], heat(KERNEL[:, 2] * 6 / PLACES), atol=1e-6)


def test_the_predicted_region_of_a_class() -> None:
    e = explained(on_places("softmax"), targets.segmentation(2), HiResCAM)
    logits = IMAGES @ KERNEL
    predicted = logits.argmax(-1) == 2
    assert 0 < predicted.sum() < predicted.size
    expected = np.maximum(logits[..., 2], 0) * predicted
    np.testing.assert_allclose(e.heatmaps[:, 0], expected, atol=1e-6)


def test_one_detection() -> None:
    model = on_places("sigmoid", flat=True)
    both = keras.Model(model.input, {"boxes": model.input, "classes": model.output})
    e = explained(both, targets.detection(7, 3, output="classes"), HiResCAM)
    expected = np.zeros((2, 4, 5))
    expected[:, 1, 2] = np.maximum(IMAGES[:, 1, 2] @ KERNEL[:, 3], 0)  # 7 = 1 * 5 + 2
    np.testing.assert_allclose(e.heatmaps[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(e.scores[:, 0], IMAGES[:, 1, 2] @ KERNEL[:, 3], rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "score", "message"),
    [
        (on_means, targets.regression(4), r"index must be 0 to 3. Received: 4"),
        (on_means, targets.absence(-1), r"class_index must be 0 to 3. Received: -1"),
        (on_means, targets.difference(1, 9), r"class_index must be 0 to 3. Received: 9"),
        (on_means, targets.difference("a", "b"), r"must be an index, as names.index\('a'\)"),
        (on_means, targets.regression, r"Received: a function; call it, as targets.regression\(\)"),
        (on_means, targets.segmentation(0), r"must be \[batch, height, width, classes\]"),
        (on_means, targets.detection(0), r"must be \[batch, detections, classes\]"),
        (on_means, targets.similarity([1.0, 2.0]), r"embedding, \(4,\). Received: \(2,\)"),
        (
            lambda: on_places("softmax"),
            targets.segmentation(0, np.ones((8, 8))),
            r"segmentation map, \(4, 5\). Received: \(8, 8\)",
        ),
        (
            lambda: on_places("softmax", flat=True),
            targets.detection(20),
            r"0 to 19. Received: 20",
        ),
    ],
)
def test_mistakes(model: Any, score: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explained(model(), score)


def test_a_class_is_not_compared_with_itself() -> None:
    with pytest.raises(UserError, match=r"other classes than class_index=1. Received: \[0, 1\]"):
        targets.difference(1, [0, 1])
