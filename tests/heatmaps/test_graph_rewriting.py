"""The graph with constant weights: folded, lowered, small, the same for XLA."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import normalized_network, pictures

from kgradcam.heatmaps.gradcam import GradCAM


@pytest.fixture
def model() -> keras.Model:
    return normalized_network()


def operations_of(cam) -> list[tf.Operation]:
    return cam._frozen.get_concrete_function().graph.get_operations()


def test_batch_normalizations_are_folded_into_convolutions(model: keras.Model) -> None:
    operations = operations_of(GradCAM(model).freeze())
    before_the_map = [each.type for each in operations if each.name.startswith("functional")]
    assert before_the_map.count("Conv2D") + before_the_map.count("_FusedConv2D") == 2
    # Of three normalizations, only the one behind the depthwise convolution's sum may remain.
    assert not any("batch_normalization" in e.name and e.type == "Mul" for e in operations)


def test_reduced_precision_agrees_with_float32(model: keras.Model, reduced: str) -> None:
    images, live = pictures(8), GradCAM(model)
    exact = live(images, classes=[0, 1, 2])
    cam = live.freeze(reduced)
    found = cam(images, classes=[0, 1, 2])
    assert cam.precision == reduced
    assert 0 < np.abs(found.heatmaps - exact.heatmaps).max() < 0.02 * exact.heatmaps.max()
    np.testing.assert_allclose(found.scores, exact.scores, atol=0.05)
    again = live.freeze("auto")
    np.testing.assert_array_equal(again(images, classes=[0, 1, 2]).heatmaps, found.heatmaps)


@pytest.mark.parametrize("options", [{}, {"score": lambda outputs: outputs[:, 0]}])
@pytest.mark.parametrize("precision", ["float32", "reduced"])
def test_xla_compiles_a_frozen_graph(
    model: keras.Model, options: dict, precision: str, request: pytest.FixtureRequest
) -> None:
    if precision == "reduced":
        precision = request.getfixturevalue("reduced")
    images, classes = pictures(), {} if options else {"classes": [0]}
    plain, compiled = (
        GradCAM(model, jit_compile=xla, **options).freeze(precision)(images, **classes)
        for xla in (False, True)
    )
    assert plain.heatmaps.max() > 0.001
    tolerance = 1e-5 if precision == "float32" else 0.02
    np.testing.assert_allclose(
        compiled.heatmaps, plain.heatmaps, atol=tolerance * plain.heatmaps.max()
    )


@pytest.mark.parametrize("precision", ["float32", "reduced"])
def test_all_scales_and_the_finer_layers_are_frozen(
    precision: str, request: pytest.FixtureRequest
) -> None:
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)  # not the module's, whose state depends on other tests
    inputs = keras.Input((None, None, 3))
    x = inputs
    for i, strides in enumerate((1, 2, 2)):
        x = keras.layers.Conv2D(8, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(name=f"scaled_{i}")(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    for i in range(3):
        model.get_layer(f"scaled_{i}").gamma.assign(random.uniform(0.5, 1.5, 8))
    images = random.normal(size=(4, 24, 32, 3)).astype(np.float32)
    options = {"scales": (1.0, 0.5), "score_scales": (0.75,), "refine": True}
    exact = GradCAM(model, **options)(images, classes=[0, 1, 2])
    if precision == "reduced":
        precision = request.getfixturevalue("reduced")
    cam = GradCAM(model, **options).freeze(precision)
    found = cam(images, classes=[0, 1, 2])
    assert np.median(np.ptp(exact.heatmaps, axis=(2, 3))) > 0.5
    difference = np.abs(found.heatmaps - exact.heatmaps).max()
    if precision == "float32":
        assert difference < 1e-3
    else:
        assert 0 < difference < 0.1
    operations = cam._frozen.get_concrete_function().graph.get_operations()
    convolutions = [each for each in operations if each.type in ("Conv2D", "_FusedConv2D")]
    lowered = [each for each in convolutions if each.outputs[0].dtype != tf.float32]
    assert len(convolutions) == 9  # three at each scale
    assert len(lowered) == (0 if precision == "float32" else 9)


def test_reduced_weights_are_not_kept_in_float32_as_well(reduced: str) -> None:
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(64, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(256, 3, use_bias=False)(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    cam = GradCAM(model).freeze(reduced)
    graph_def = cam._frozen.get_concrete_function().graph.as_graph_def()
    size = 4 * model.count_params()
    assert 0.5 * size < graph_def.ByteSize() < 0.6 * size + 50_000


@pytest.mark.slow
def test_photographs_agree_in_reduced_precision(shared: Path, reduced: str) -> None:
    """For each of 40 dogs a cosine of 0.999; for their boxes an IoU of 0.95 in the median."""
    from kgradcam.boxes.normalization import normalize
    from kgradcam.boxes.single_threshold import single_threshold_boxes
    from kgradcam.data.images import read_image
    from kgradcam.models.classifier import load_classifier

    classifier = load_classifier("efficientnet-lite0", image_size=224)
    exact = GradCAM(classifier.model, preprocess=classifier.preprocess)
    lower = exact.freeze(reduced)
    paths = sorted((shared / "data/dogs40/JPEGImages").glob("*.jpg"))
    images = np.stack([read_image(path, 224) for path in paths])
    one, other = (
        cam(images, classes=[range(151, 269)]).heatmaps[:, 0].astype(np.float64)
        for cam in (exact, lower)
    )
    norms = np.linalg.norm(one, axis=(1, 2)) * np.linalg.norm(other, axis=(1, 2))
    assert len(paths) == 40
    assert ((one * other).sum(axis=(1, 2)) / norms).min() >= 0.999
    overlaps = []
    for pair in zip(one, other, strict=True):
        found = [single_threshold_boxes(normalize(each, (224, 224)), 0.25) for each in pair]
        a, b = (max(boxes, key=lambda box: (box[2:] - box[:2]).prod()) for boxes in found)
        inner = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
        areas = sum((box[2:] - box[:2]).prod() for box in (a, b))
        overlaps.append(inner / (areas - inner))
    assert np.median(overlaps) >= 0.95
