"""EfficientNet-Lite0 with its real weights gives the published answers."""

import cv2
import numpy as np
import pytest
import skimage.data

from kgradcam import imagenet
from kgradcam.efficientnet_lite import EfficientNetLite0, preprocess_input
from kgradcam.errors import UserError


@pytest.fixture(scope="module")
def model():
    return EfficientNetLite0()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ("chelsea", {"Egyptian cat": 0.767, "tiger cat": 0.115, "tabby": 0.076}),
        ("coffee", {"espresso": 0.899}),
    ],
)
def test_probabilities_of_known_photographs(model, picture, expected) -> None:
    photograph = getattr(skimage.data, picture)()
    image = cv2.resize(photograph, (224, 224), interpolation=cv2.INTER_CUBIC)
    probabilities = model(preprocess_input(image[np.newaxis].astype(np.float32)))[0].numpy()
    top = np.argsort(-probabilities)[: len(expected)]
    found = {imagenet.CLASS_NAMES[i]: round(float(probabilities[i]), 3) for i in top}
    assert found == expected


def test_the_architecture(model) -> None:
    assert model.count_params() == 4_694_024
    assert model.get_layer("top_activation").output.shape == (None, None, None, 1280)
    fixed = EfficientNetLite0(weights=None, input_shape=(224, 224, 3))
    assert fixed.get_layer("top_activation").output.shape == (None, 7, 7, 1280)
    assert fixed.get_layer("block5c_add").output.shape == (None, 14, 14, 112)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"'_fc.weight' must have the shape \(1280, 7\)"):
        EfficientNetLite0(classes=7)
    with pytest.raises(UserError, match="'imagenet' or None. Received: 'noisy-student'"):
        EfficientNetLite0(weights="noisy-student")
