"""Classifiers by name: weights, sizes and preprocessing, and what is said where they fail."""

import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest

from kgradcam import imagenet
from kgradcam.errors import UserError
from kgradcam.models import load_classifier, model_names


@pytest.fixture(scope="module")
def mobilenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    keras.utils.set_random_seed(0)
    keras.applications.MobileNet(weights=None).save_weights(path)
    return path


def test_names_are_those_of_keras_and_ours() -> None:
    assert {"efficientnet-lite0", "resnet50", "vgg16", "mobilenetv3small", "convnexttiny"} < set(
        model_names()
    )


def test_any_size_is_the_same_network(mobilenet_weights: Path) -> None:
    fixed = load_classifier("mobilenet", str(mobilenet_weights), image_size=224)
    flexible = load_classifier("mobilenet", str(mobilenet_weights))
    assert (fixed.image_size, flexible.image_size) == (224, None)
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(
        fixed.model(fixed.preprocess(images)),
        flexible.model(flexible.preprocess(images)),
        rtol=1e-5,
    )
    assert flexible.model(np.zeros((1, 100, 131, 3))).shape == (1, 1000)
    assert flexible.class_names is imagenet.CLASS_NAMES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet", [-1, 127 / 127.5 - 1, 1]),  # -1 to 1
        ("efficientnet-lite0", [-127 / 128, 0, 1]),
        ("resnet50", [255 - 103.939, 127 - 116.779, -123.68]),  # BGR, means subtracted
        ("none", [0, 127, 255]),
    ],
)
def test_preprocessing_is_the_models(tiny_model: Path, name: str, expected: list[float]) -> None:
    classifier = load_classifier(str(tiny_model), preprocess=name)
    pixel = np.array([[[[0.0, 127.0, 255.0]]]], np.float32)
    np.testing.assert_allclose(
        np.ravel(classifier.preprocess(keras.ops.convert_to_tensor(pixel))), expected, atol=1e-4
    )


def test_a_file_brings_its_weights(tiny_model: Path) -> None:
    classifier = load_classifier(str(tiny_model))
    assert classifier.class_names is None
    assert classifier.image_size is None
    white = np.full((1, 4, 4, 3), 255, np.float32)
    logits = np.array([1.0, -1, 2])
    np.testing.assert_allclose(
        classifier.model(classifier.preprocess(white))[0],
        np.exp(logits) / np.exp(logits).sum(),
        rtol=1e-5,
    )


def test_a_flattening_head_keeps_its_size(tmp_path: Path) -> None:
    path = tmp_path / "flat.keras"
    keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(2, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    ).save(path)
    assert load_classifier(str(path), image_size=8).image_size == 8
    with pytest.raises(UserError, match=r"8x8 only, not of any size. Give --image-size 8"):
        load_classifier(str(path))


def test_unknown_names_and_files_are_told(tmp_path: Path, mobilenet_weights: Path) -> None:
    with pytest.raises(UserError, match=r"model='resnet5O' is neither .* Did you mean 'resnet50'"):
        load_classifier("resnet5O")
    with pytest.raises(UserError, match=r"No model file nowhere.keras"):
        load_classifier("nowhere.keras")
    (tmp_path / "text.keras").write_text("text")
    with pytest.raises(UserError, match=r"text.keras cannot be loaded as a Keras model"):
        load_classifier(str(tmp_path / "text.keras"))
    with pytest.raises(UserError, match="weights='nowhere.h5' is neither 'imagenet' nor a file"):
        load_classifier("mobilenet", "nowhere.h5")
    with pytest.raises(UserError, match=r"mobilenet.weights.h5' do not fit mobilenetv2"):
        load_classifier("mobilenetv2", str(mobilenet_weights))
    with pytest.raises(UserError, match=r"preprocess='resnet5' is not .* Did you mean 'resnet50"):
        load_classifier("mobilenet", str(mobilenet_weights), preprocess="resnet5")


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)]).save(tmp_path / "vector.keras")
    with pytest.raises(UserError, match=r"RGB images. Its input is \(None, 7\)"):
        load_classifier(str(tmp_path / "vector.keras"))


def test_without_network_weights_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("name resolution failed")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(UserError, match="cannot be downloaded .* Give --weights FILE, or take"):
        load_classifier("mobilenet")
