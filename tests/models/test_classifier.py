"""Classifiers: weights, input sizes, preprocessing, class names, and errors."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.models import imagenet
from kgradcam.models.classifier import load_classifier
from kgradcam.models.model_card import write_card


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


def test_a_keras_file_has_its_own_weights(tiny_model: Path) -> None:
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


def test_a_network_for_any_size_is_built_once(
    mobilenet_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(**options: object) -> keras.Model:
        built.append(keras.applications.MobileNet(**options))
        return built[-1]

    monkeypatch.setattr(
        "kgradcam.models.network.keras_applications",
        lambda: {"mobilenet": (build, keras.applications.mobilenet)},
    )
    model = load_classifier("mobilenet", str(mobilenet_weights)).model
    assert model.input_shape == (None, None, None, 3)
    (original,) = built
    assert [id(each) for each in model.variables] == [id(each) for each in original.variables]
    images = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(model(images), original(images), rtol=1e-6)


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


def test_unknown_names_and_files_are_refused(tmp_path: Path, mobilenet_weights: Path) -> None:
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
    with pytest.raises(
        UserError, match=r"preprocess='resnet5' is neither .* Did you mean 'resnet50"
    ):
        load_classifier("mobilenet", str(mobilenet_weights), preprocess="resnet5")


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)]).save(tmp_path / "vector.keras")
    with pytest.raises(UserError, match=r"batch of images .* shape is \(None, 7\)"):
        load_classifier(str(tmp_path / "vector.keras"))


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.keras").write_bytes(tiny_model.read_bytes())
    write_card(tmp_path / "mine", {"classes": ["a", "b", "c"], "preprocess": "mobilenet"})
    return tmp_path / "mine"


def test_a_folder_has_class_names_and_preprocessing(folder: Path) -> None:
    classifier = load_classifier(str(folder))
    assert classifier.class_names == ("a", "b", "c")
    pixel = keras.ops.convert_to_tensor(np.full((1, 1, 1, 3), 255, np.float32))
    assert np.ravel(classifier.preprocess(pixel)).tolist() == [1.0, 1.0, 1.0]
    plain = load_classifier(str(folder), preprocess="none")
    assert np.ravel(plain.preprocess(pixel)).tolist() == [255.0, 255.0, 255.0]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "is no readable JSON"),
        ("[]", "not a readable model card"),
        ('{"schema": 1, "classes": ["a"]}', "not a readable model card: it lacks .preprocess."),
        ('{"schema": 2, "classes": ["a"], "preprocess": "none"}', "has schema 2. Expected: 1"),
        ('{"schema": 1, "classes": "abc", "preprocess": "none"}', "must be a list of strings"),
        ('{"schema": 1, "classes": ["a"], "preprocess": "none"}', "names 1 classes, .* 3 outputs"),
    ],
)
def test_a_damaged_card_is_refused(folder: Path, card: str, message: str) -> None:
    (folder / "card.json").write_text(card)
    with pytest.raises(UserError, match=message):
        load_classifier(str(folder))


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a model folder: it has no card.json"):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("", "is no readable JSON"),
        ("[" * 100_000, "is no readable JSON: maximum recursion"),
        ("[]", "it must be a JSON object"),
        (
            '{"classes": ["a"], "preprocess": "none", "schema": 1e999}',
            "has schema inf. Expected: 1",
        ),
        (
            '{"classes": ["a"], "preprocess": "none", "schema": %s}' % ("9" * 5000),
            "is no readable JSON: Exceeds",
        ),
        ('{"classes": ["\\ud800"], "preprocess": "none", "schema": 1}', "a list of strings"),
        ('{"classes": "ab", "preprocess": "none", "schema": 1}', "a list of strings"),
        ('{"classes": ["a", "b"], "preprocess": ["none"], "schema": 1}', "a list of strings"),
        ('{"classes": ["a", "b"], "preprocess": "none", "schema": 1}', "2 classes, but .* has 3"),
        ('{"classes": ["a", "b", "c"], "preprocess": "nano", "schema": 1}', "'nano' is neither"),
    ],
)
def test_a_damaged_card_is_refused_in_one_line(
    tiny_model: Path, tmp_path: Path, card: str, message: str
) -> None:
    (tmp_path / "model.keras").write_bytes(tiny_model.read_bytes())
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(UserError, match=message):
        load_classifier(str(tmp_path))


def test_a_card_of_an_endless_file_is_not_read(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(tiny_model.read_bytes())
    with (tmp_path / "card.json").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no space
    with pytest.raises(UserError, match="card.json has 1,099,511,627,776 bytes, more than"):
        load_classifier(str(tmp_path))
    (tmp_path / "card.json").unlink()
    os.mkfifo(tmp_path / "card.json")
    with pytest.raises(UserError, match="is not a model folder"):
        load_classifier(str(tmp_path))
