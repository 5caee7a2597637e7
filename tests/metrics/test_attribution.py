"""Heatmaps for other toolkits; Quantus itself where it is installed."""

from typing import Any

import keras
import numpy as np
import pytest

from kgradcam import GradCAM, normalize
from kgradcam.metrics import attributions, energy_inside

IMAGES = np.random.default_rng(0).uniform(size=(4, 16, 12, 3)).astype(np.float32)
CLASSES = np.array([0, 3, 2, 1])


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(4, "softmax")(x))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.abs(kernel), bias])  # every class has heat
    return model


def test_heatmaps_at_the_size_of_the_images_in_either_layout(model: keras.Model) -> None:
    found = attributions(model, IMAGES, CLASSES)
    assert found.shape == (4, 1, 16, 12)
    np.testing.assert_array_equal(found, attributions(model, IMAGES.transpose(0, 3, 1, 2), CLASSES))
    e = GradCAM(model)(IMAGES, class_per_image=CLASSES.tolist())
    for i in range(4):
        stretched = (found[i, 0] - found[i, 0].min()) / np.ptp(found[i, 0])
        expected = normalize(e.heatmaps[i, 0], (12, 16), e.extent)
        np.testing.assert_allclose(stretched, expected, atol=1e-5)
    other = attributions(model, IMAGES, CLASSES, method="eigencam")
    assert not np.allclose(other, found)


def test_quantus_rates_them(model: keras.Model) -> None:
    quantus = pytest.importorskip("quantus", reason="needs Quantus, whose OpenCV is another one")
    masks = np.zeros((4, 1, 16, 12))
    masks[:, :, 4:12, 3:9] = 1
    given: dict[str, Any] = {
        "model": model,
        "x_batch": IMAGES,
        "y_batch": CLASSES,
        "a_batch": None,
        "channel_first": False,
        "explain_func": attributions,
    }
    quiet: dict[str, Any] = {"disable_warnings": True, "abs": False, "normalise": False}
    inside = quantus.RelevanceMassAccuracy(**quiet)(**given, s_batch=masks)
    heat = attributions(model, IMAGES, CLASSES)
    expected = [energy_inside(heat[i, 0], masks[i, 0] > 0) for i in range(4)]
    np.testing.assert_allclose(inside, expected, rtol=1e-4)
    curves = quantus.PixelFlipping(features_in_step=48, perturb_baseline="black", **quiet)(**given)
    hottest = np.argsort(-heat[:, 0].reshape(4, -1), axis=1)[:, :16]
    first = IMAGES.reshape(4, -1, 3).copy()
    np.put_along_axis(first, hottest[:, :, None], 0, axis=1)
    probabilities = model.predict(first.reshape(IMAGES.shape), verbose=0)
    np.testing.assert_allclose(
        np.array(curves)[:, 0], probabilities[np.arange(4), CLASSES], rtol=1e-3
    )
