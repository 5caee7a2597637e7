"""Inputs in every structure that Keras takes, and sentences for everything else."""

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from networks import pictures

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.methods import EigenCAM, GuidedGradCAM, ScoreCAM

layers = keras.layers


def two_inputs(kind: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    image, vector = keras.Input((12, 12, 3), name="image"), keras.Input((4,), name="age")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="maps")(image))
    outputs = layers.Dense(2)(layers.concatenate([pooled, vector]))
    inputs = {"image": image, "age": vector} if kind == "dict" else [image, vector]
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_two_inputs_in_any_structure(kind: str) -> None:
    cam = GradCAM(two_inputs(kind))
    image, age = pictures(), np.ones((2, 4))
    expected = cam([image, age], classes=[0])
    for given in (
        (image, age),
        {"image": image, "age": age},
        {"age": age, "image": image, "unused": age},
    ):
        found = cam(given, classes=[0])
        np.testing.assert_array_equal(found.heatmaps, expected.heatmaps)
        np.testing.assert_array_equal(found.scores, expected.scores)
    with pytest.raises(UserError, match="with the inputs .*without age"):
        cam({"image": image})
    with pytest.raises(UserError, match="a list or dict for the 2 inputs"):
        cam(image)


@pytest.mark.parametrize("kind", ["plain", "list", "dict"])
def test_one_input_in_any_structure(kind: str) -> None:
    inputs = keras.Input((12, 12, 3), name="image")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    structure = {"plain": inputs, "list": [inputs], "dict": {"image": inputs}}[kind]
    cam = GradCAM(keras.Model(structure, layers.Dense(2)(pooled)))
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    expected = cam(images, classes=[0]).heatmaps
    for given in (
        [images],
        {"image": images},
        list(images),
        tuple(images),
        tf.constant(images),
        [PIL.Image.fromarray(each) for each in images],
    ):
        np.testing.assert_array_equal(cam(given, classes=[0]).heatmaps, expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((12, 12, 3)), r"batch axis: images\[np.newaxis\]"),
        ((np.zeros((2, 12, 12, 3)), np.zeros(2)), "batch .images, labels."),
        ([np.zeros((12, 12, 3)), np.zeros((9, 12, 3))], "must have one size"),
        (np.zeros((1, 12, 12, 3), complex), "integers or floats. Received: .*complex128"),
        ("cat.jpg", "integers or floats. Received: str"),
        (np.full((1, 12, 12, 3), 1e300), r"images\[0\] holds NaN or infinite"),
        (tf.fill((1, 12, 12, 3), tf.constant(np.nan, tf.bfloat16)), r"images\[0\] holds NaN"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(nested: keras.Model, images, message) -> None:
    with pytest.raises(UserError, match=message):
        GradCAM(nested)(images)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("model.keras", r"keras.models.load_model\(path\). Received: str"),
        (None, "load_weights and compile return None"),
        (layers.Dense(3), r"keras.Sequential\(\[keras.Input"),
        (tf.Module(), "layers of a SavedModel cannot be reached"),
        (lambda images: images, "the call of a keras.Model"),
    ],
)
def test_what_is_no_model_is_refused(model, message) -> None:
    with pytest.raises(UserError, match=message):
        GradCAM(model)


def test_layers_as_objects_and_by_index(nested: keras.Model) -> None:
    model = two_inputs("list")
    maps = model.get_layer("maps")
    place = model.layers.index(maps)
    for layer in (maps, place, place - len(model.layers), [maps]):
        assert GradCAM(model, layer).layer == "maps"
    for layer in (99, 1.5, True):
        with pytest.raises(UserError, match="a name, a layer, or an index"):
            GradCAM(model, layer)


def test_integer_inputs() -> None:
    inputs = keras.Input((12, 12, 3), dtype="uint8")
    maps = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(maps)))
    images = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8)
    heatmaps = ScoreCAM(model)(images, classes=[0]).heatmaps
    assert heatmaps.shape == (1, 1, 10, 10)
    assert heatmaps.max() > 0
    with pytest.raises(UserError, match="takes integers"):
        GuidedGradCAM(model)(images, classes=[0])


@pytest.mark.parametrize("channels", [3, 200])
def test_eigen_cam_by_places_or_by_channels(channels: int) -> None:
    """The first right singular vector of centred rows, whichever products are fewer."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    maps = layers.Conv2D(channels, 3, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(maps)))
    images = pictures(1)
    rows = keras.Model(inputs, maps)(images).numpy().reshape(100, channels)
    centred = rows - rows.mean(axis=0)
    projected = centred @ np.linalg.svd(centred)[2][0]
    projected *= np.sign(projected @ rows.sum(axis=1))
    found = EigenCAM(model)(images, classes=[0]).heatmaps[0, 0].ravel()
    np.testing.assert_allclose(found, np.maximum(projected, 0), atol=1e-4)


@pytest.mark.parametrize("explainer", [ScoreCAM, GuidedGradCAM])
def test_channels_first_equals_channels_last(explainer) -> None:
    def network(layout: str) -> keras.Model:
        keras.utils.set_random_seed(1)
        shape = (3, 32, 24) if layout == "channels_first" else (32, 24, 3)
        options = {"padding": "same", "activation": "relu", "data_format": layout, "strides": 2}
        inputs = keras.Input(shape)
        maps = layers.Conv2D(8, 3, **options)(layers.Conv2D(8, 3, **options)(inputs))
        pooled = layers.GlobalAveragePooling2D(data_format=layout)(maps)
        return keras.Model(inputs, layers.Dense(3)(pooled))

    images = pictures(2, 32, 24, 3)
    expected = explainer(network("channels_last"))(images, classes=[0]).heatmaps
    first = np.moveaxis(images, -1, 1)
    found = explainer(network("channels_first"))(first, classes=[0]).heatmaps
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
