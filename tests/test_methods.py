"""The family of methods: each against its formula in NumPy, on nets whose gradients are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.gradcam import GradCAM
from kgradcam.methods import (
    METHODS,
    AblationCAM,
    CounterfactualCAM,
    EigenCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
    find_method,
)

CLASSES = [0, 1, 2]


def pictures(count: int = 2) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, 10, 8, 3)).astype(np.float32)


def build(spatial: bool, activation: str = "relu") -> keras.Model:
    """A head of GAP + Dense; or one that weighs each place differently, and bends."""
    keras.utils.set_random_seed(1)
    if spatial:
        head = [keras.layers.Flatten(), keras.layers.Dense(7, activation="tanh")]
    else:
        head = [keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            keras.layers.Conv2D(5, 3, padding="same", activation=activation, name="maps"),
            *head,
            keras.layers.Dense(3, name="head"),
        ]
    )


def maps_and_gradients(model: keras.Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Feature maps `[b, h, w, k]` and gradients `[classes, b, h, w, k]`, computed eagerly."""
    maps = tf.constant(model.get_layer("maps")(images))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        x = maps
        for layer in model.layers[1:]:
            x = layer(x)
        scores = [x[:, c] for c in CLASSES]
    gradients = [tape.gradient(score, maps).numpy() for score in scores]
    return maps.numpy().astype(np.float64), np.array(gradients, np.float64)


def grad_cam(maps: np.ndarray, g: np.ndarray) -> np.ndarray:
    return (g.mean(axis=(2, 3), keepdims=True) * maps).sum(axis=-1)


def grad_cam_plus_plus(maps: np.ndarray, g: np.ndarray) -> np.ndarray:
    below = 2 * g**2 + g**3 * maps.sum(axis=(1, 2), keepdims=True)
    a = np.divide(g**2, below, out=np.zeros_like(g), where=below != 0)
    return ((a * np.maximum(g, 0)).sum(axis=(2, 3), keepdims=True) * maps).sum(axis=-1)


def x_grad_cam(maps: np.ndarray, g: np.ndarray) -> np.ndarray:
    total = maps.sum(axis=(1, 2), keepdims=True)
    share = np.divide(maps, total, out=np.zeros_like(maps), where=total != 0)
    return ((g * share).sum(axis=(2, 3), keepdims=True) * maps).sum(axis=-1)


FORMULAS = {
    GradCAM: grad_cam,
    GradCAMPlusPlus: grad_cam_plus_plus,
    XGradCAM: x_grad_cam,
    HiResCAM: lambda maps, g: (g * maps).sum(axis=-1),
    LayerCAM: lambda maps, g: (np.maximum(g, 0) * maps).sum(axis=-1),
    CounterfactualCAM: lambda maps, g: -grad_cam(maps, g),
}


@pytest.mark.parametrize("method", FORMULAS, ids=lambda method: method.__name__)
@pytest.mark.parametrize("spatial", [False, True], ids=["gap", "spatial"])
def test_gradient_methods_are_their_formulas(method: type[GradCAM], spatial: bool) -> None:
    model, images = build(spatial), pictures()
    expected = np.maximum(FORMULAS[method](*maps_and_gradients(model, images)), 0)
    explanation = method(model)(images, classes=CLASSES)
    assert expected.max() > 0
    np.testing.assert_allclose(
        explanation.heatmaps, expected.swapaxes(0, 1), rtol=1e-3, atol=1e-5 * expected.max()
    )


@pytest.mark.parametrize("method", [HiResCAM, XGradCAM])
def test_what_is_grad_cam_on_a_gap_and_dense_head(method: type[GradCAM]) -> None:
    model, images = build(spatial=False), pictures()
    np.testing.assert_allclose(
        method(model)(images, classes=CLASSES).heatmaps,
        GradCAM(model)(images, classes=CLASSES).heatmaps,
        atol=1e-6,
    )


def test_heat_for_and_against_do_not_overlap() -> None:
    model, images = build(spatial=True), pictures()
    speaking_for = GradCAM(model)(images, classes=CLASSES).heatmaps
    against = CounterfactualCAM(model)(images, classes=CLASSES).heatmaps
    assert (np.minimum(speaking_for, against) == 0).all()
    assert min(speaking_for.max(), against.max()) > 0


def test_eigen_cam_is_the_first_component_of_an_svd() -> None:
    model, images = build(spatial=True), pictures()
    maps, _ = maps_and_gradients(model, images)
    explanation = EigenCAM(model)(images, classes=[0, 1])
    for i in range(2):
        rows = maps[i].reshape(80, 5)
        u, s, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        component = u[:, 0] * s[0]
        component *= np.sign(component @ rows.sum(axis=1))
        expected = np.maximum(component.reshape(10, 8), 0)
        for heatmap in explanation.heatmaps[i]:
            np.testing.assert_allclose(heatmap, expected, atol=1e-4)


def test_ablation_cam_drops_one_channel_at_a_time() -> None:
    model, images = build(spatial=True), pictures()
    maps, _ = maps_and_gradients(model, images)

    def scores(feature_maps: np.ndarray) -> np.ndarray:
        x = feature_maps.astype(np.float32)
        for layer in model.layers[1:]:
            x = layer(x)
        return x.numpy()

    y = scores(maps)
    expected = np.zeros((2, 3, 10, 8))
    for k in range(5):
        without = maps.copy()
        without[..., k] = 0
        weights = (y - scores(without)) / np.abs(y)
        expected += weights[:, :, None, None] * maps[:, None, :, :, k]
    explanation = AblationCAM(model)(images, classes=CLASSES)
    np.testing.assert_allclose(explanation.heatmaps, np.maximum(expected, 0), rtol=1e-3, atol=1e-4)


def test_score_cam_masks_the_image_with_each_channel() -> None:
    model, images = build(spatial=True), pictures()
    maps, _ = maps_and_gradients(model, images)
    scores = []
    for k in range(5):
        mask = maps[..., k : k + 1]  # of the image's size already
        mask = mask - mask.min(axis=(1, 2), keepdims=True)
        mask = mask / mask.max(axis=(1, 2), keepdims=True)
        scores.append(model((images * mask).astype(np.float32)).numpy())
    weights = np.exp(scores) / np.exp(scores).sum(axis=0)
    expected = np.maximum(np.einsum("kbc,bhwk->bchw", weights, maps), 0)
    explanation = ScoreCAM(model)(images, classes=CLASSES)
    np.testing.assert_allclose(explanation.heatmaps, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_finite_traced_once_and_by_name(name: str) -> None:
    model = build(spatial=False)
    cam = find_method(name)(model)
    for batch in (1, 3):
        explanation = cam(np.zeros((batch, 10, 8, 3)), classes=[0, [1, 2]])
        assert explanation.heatmaps.shape == (batch, 2, 10, 8)
        assert np.isfinite(explanation.heatmaps).all()
        assert explanation.heatmaps.min() >= 0
    assert cam.trace_count == 1
    assert find_method(name) is METHODS[name]


def test_a_method_of_ones_own_is_a_few_lines() -> None:
    class ElementwisePositive(GradCAM):
        """Only where both the activation and its gradient are positive."""

        def heatmap(self, feature_maps, gradients):
            return tf.reduce_sum(tf.nn.relu(gradients * feature_maps), axis=-1)

    model, images = build(spatial=True, activation="tanh"), pictures()
    maps, g = maps_and_gradients(model, images)
    expected = np.maximum(g * maps, 0).sum(axis=-1).swapaxes(0, 1)
    heatmaps = ElementwisePositive(model)(images, classes=CLASSES).heatmaps
    np.testing.assert_allclose(heatmaps, expected, rtol=1e-3, atol=1e-6)


def test_what_a_method_cannot_do_is_told() -> None:
    with pytest.raises(UserError, match=r"'gradcam\+' is none of .* Did you mean 'gradcam\+\+'"):
        find_method("gradcam+")
    series = keras.Sequential(
        [
            keras.Input((9, 2)),
            keras.layers.Conv1D(3, 3),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(UserError, match="Score-CAM masks one image"):
        ScoreCAM(series)
    with pytest.raises(UserError, match="Ablation-CAM puts feature maps back"):
        AblationCAM(build(spatial=False), reshape=lambda maps: maps)
