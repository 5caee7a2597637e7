"""The family of methods: each against its formula in NumPy, on nets whose gradients are known."""

from collections.abc import Callable

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import (
    CAM,
    METHODS,
    AblationCAM,
    CounterfactualCAM,
    EigenCAM,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
    find_method,
    per_class,
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
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "xgradcam": x_grad_cam,
    "hirescam": lambda maps, g: (g * maps).sum(axis=-1),
    "layercam": lambda maps, g: (np.maximum(g, 0) * maps).sum(axis=-1),
    "counterfactual": lambda maps, g: -grad_cam(maps, g),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("spatial", [False, True], ids=["gap", "spatial"])
def test_gradient_methods_are_their_formulas(name: str, spatial: bool) -> None:
    model, images = build(spatial), pictures()
    expected = np.maximum(FORMULAS[name](*maps_and_gradients(model, images)), 0)
    explanation = METHODS[name](model)(images, classes=CLASSES)
    assert expected.max() > 0
    np.testing.assert_allclose(
        explanation.heatmaps, expected.swapaxes(0, 1), rtol=1e-3, atol=1e-5 * expected.max()
    )


@pytest.mark.parametrize("method", [HiResCAM, XGradCAM])
def test_what_is_grad_cam_on_a_gap_and_dense_head(method: Callable[..., GradCAM]) -> None:
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
    @per_class
    def elementwise_positive(feature_maps, gradients):
        """Only where both the activation and its gradient are positive."""
        return tf.reduce_sum(tf.nn.relu(gradients * feature_maps), axis=-1)

    model, images = build(spatial=True, activation="tanh"), pictures()
    maps, g = maps_and_gradients(model, images)
    expected = np.maximum(g * maps, 0).sum(axis=-1).swapaxes(0, 1)
    heatmaps = GradCAM(model, method=elementwise_positive)(images, classes=CLASSES).heatmaps
    np.testing.assert_allclose(heatmaps, expected, rtol=1e-3, atol=1e-6)


def test_what_a_method_cannot_do_is_told() -> None:
    with pytest.raises(UserError, match=r"Received: 'gradcam\+'. Did you mean 'gradcam\+\+'"):
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


def test_cam_is_the_weights_of_the_head() -> None:
    model, images = build(spatial=False), pictures()
    maps, _ = maps_and_gradients(model, images)
    expected = np.einsum("bhwk,kc->bchw", maps, model.get_layer("head").kernel.numpy())
    heatmaps = CAM(model)(images, classes=CLASSES).heatmaps
    np.testing.assert_allclose(heatmaps, np.maximum(expected, 0), atol=1e-5)
    np.testing.assert_allclose(
        heatmaps / 80, GradCAM(model)(images, classes=CLASSES).heatmaps, atol=1e-6
    )


def test_cam_takes_a_convolution_for_a_head() -> None:
    """MobileNet's head is a 1x1 convolution of the pooled map."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((10, 8, 3))
    maps = keras.layers.Conv2D(5, 3, activation="relu", name="maps")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(maps)
    head = keras.layers.Conv2D(3, 1, name="head")
    outputs = keras.layers.Softmax()(keras.layers.Reshape((3,))(head(pooled)))
    model, images = keras.Model(inputs, outputs), pictures()
    maps = model.get_layer("maps")(images).numpy()
    expected = np.einsum("bhwk,kc->bchw", maps, head.kernel.numpy()[0, 0])
    heatmaps = CAM(model)(images, classes=CLASSES).heatmaps
    np.testing.assert_allclose(heatmaps, np.maximum(expected, 0), atol=1e-5)


@pytest.mark.parametrize("kind", ["another layer", "another head", "maximum"])
def test_cam_refuses_a_model_without_such_a_head(kind: str) -> None:
    pool = keras.layers.GlobalMaxPooling2D if kind == "maximum" else None
    model = keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            keras.layers.Conv2D(4, 3, name="first"),
            keras.layers.Conv2D(4, 3, name="last"),
            (pool or keras.layers.GlobalAveragePooling2D)(),
            *([keras.layers.Dense(4, activation="relu")] if kind == "another head" else []),
            keras.layers.Dense(3),
        ]
    )
    with pytest.raises(UserError, match="CAM needs a model that ends in a global average pooling"):
        CAM(model, "first" if kind == "another layer" else None)


def test_several_layers_are_fused() -> None:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="fine"),
            keras.layers.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="coarse"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    for method in (LayerCAM, GradCAM):
        fused = method(model, ["coarse", "fine"])
        found = fused(images, classes=CLASSES).heatmaps
        assert (fused.layer, fused.trace_count) == (("coarse", "fine"), 1)
        expected = np.zeros((2, 3, 12, 12))
        for layer in ("coarse", "fine"):
            alone = method(model, layer)(images, classes=CLASSES).heatmaps
            highest = alone.max(axis=(2, 3), keepdims=True)
            scaled = np.divide(alone, highest, out=np.zeros_like(alone), where=highest > 0)
            for i, j in np.ndindex(2, 3):
                expected[i, j] += cv2.resize(scaled[i, j], (12, 12)) / 2
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_its_relu_a_heatmap_is_signed() -> None:
    model, images = build(spatial=True), pictures()
    expected = grad_cam(*maps_and_gradients(model, images)).swapaxes(0, 1)
    assert expected.min() < 0 < expected.max()
    signed = GradCAM(model, relu=False)(images, classes=CLASSES).heatmaps
    np.testing.assert_allclose(signed, expected, rtol=1e-3, atol=1e-6)


def test_the_scale_of_the_logits_does_not_move_the_heat() -> None:
    model, images = build(spatial=False), pictures()
    before = {name: METHODS[name](model)(images, classes=CLASSES).heatmaps for name in SCALING}
    head = model.get_layer("head")
    head.kernel.assign(4 * head.kernel)
    for name, heatmaps in before.items():
        after = METHODS[name](model)(images, classes=CLASSES).heatmaps
        scale = 16 if name == "guided-gradcam" else 4  # a product of two gradients
        np.testing.assert_allclose(after, scale * heatmaps, rtol=1e-4, atol=1e-6)


SCALING = ("gradcam", "cam", "hirescam", "layercam", "counterfactual", "xgradcam", "guided-gradcam")


@pytest.mark.parametrize("name", METHODS)
def test_images_of_a_batch_do_not_see_one_another(name: str) -> None:
    cam = METHODS[name](build(spatial=False))
    images = np.random.default_rng(1).normal(size=(5, 10, 8, 3)).astype(np.float32)
    order = np.array([3, 1, 4, 0, 2])
    heatmaps = cam(images, classes=CLASSES).heatmaps
    permuted = cam(images[order], classes=CLASSES).heatmaps
    scale = heatmaps.max()
    np.testing.assert_allclose(permuted, heatmaps[order], atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_mirrored_image_has_a_mirrored_heatmap(name: str) -> None:
    """With kernels that are their own mirror images the net is equivariant."""
    model, images = build(spatial=False), pictures()
    layer = model.get_layer("maps")
    kernel = layer.kernel.numpy()
    layer.kernel.assign((kernel + kernel[:, ::-1]) / 2)
    cam = METHODS[name](model)
    heatmaps = cam(images, classes=CLASSES).heatmaps
    mirrored = cam(images[:, :, ::-1], classes=CLASSES).heatmaps
    np.testing.assert_allclose(mirrored[..., ::-1], heatmaps, atol=1e-4 * heatmaps.max())


def test_the_sign_of_eigen_cam_does_not_hang_on_rounding() -> None:
    """Two channels that cancel: activity has no variance, so the largest value decides."""
    inputs = keras.Input((4, 4, 2))
    maps = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")
    pooled = keras.layers.GlobalAveragePooling2D()(maps(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    maps.kernel.assign(np.eye(2).reshape(1, 1, 2, 2))
    one = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    images = np.stack([one, -one], axis=-1)
    cam = EigenCAM(model, relu=False)
    found = cam(images, classes=[0]).heatmaps[0, 0]
    swapped = cam(images[..., ::-1], classes=[0]).heatmaps[0, 0]
    np.testing.assert_allclose(found, swapped, atol=1e-5)
    assert found.flat[np.abs(found).argmax()] > 0
