"""Classifiers by name: weights, sizes and preprocessing, and what is said where they fail."""

import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.models import imagenet
from kgradcam.models.classifier import load_classifier, load_network, model_names
from kgradcam.models.model_card import write_card


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


def test_a_network_for_any_size_is_built_once_and_drawn_never(
    mobilenet_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, drawn = [], []
    build, initializer = keras.applications.MobileNet, keras.initializers.VarianceScaling
    draw = initializer.__call__
    monkeypatch.setattr(
        "kgradcam.models.classifier.application_names",
        lambda: {
            "mobilenet": (
                lambda **options: made.append(build(**options)) or made[-1],
                keras.applications.mobilenet,
            )
        },
    )
    monkeypatch.setattr(
        initializer, "__call__", lambda *arguments, **_: drawn.append(1) or draw(*arguments)
    )
    model = load_classifier("mobilenet", str(mobilenet_weights)).model
    assert model.input_shape == (None, None, None, 3)
    assert len(made) == 1
    assert [id(each) for each in model.variables] == [id(each) for each in made[0].variables]
    assert not drawn
    images = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    np.testing.assert_allclose(model(images), made[0](images), rtol=1e-6)
    # Weights of nowhere are drawn, as ever.
    load_classifier("mobilenet", None)
    assert drawn


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


@pytest.fixture(scope="module")
def mobilenet_arrays(mobilenet_weights: Path) -> dict[str, np.ndarray]:
    model = keras.applications.MobileNet(weights=None)
    model.load_weights(mobilenet_weights)
    return {variable.path: variable.numpy() for variable in model.weights}


def test_a_part_of_the_weights_is_filled_and_the_rest_named(
    mobilenet_arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    part = {key: array for key, array in mobilenet_arrays.items() if "_12" not in key}
    part.pop("conv_preds/bias")  # alone, it counts as 0
    np.savez(tmp_path / "part.npz", **part)
    model, missing = load_network("mobilenet", str(tmp_path / "part.npz"))
    assert missing == ["conv_dw_12", "conv_dw_12_bn", "conv_pw_12", "conv_pw_12_bn"]
    for variable in model.weights:
        if variable.path in part:
            np.testing.assert_array_equal(variable, part[variable.path])
    with pytest.raises(UserError, match=r"lack 4 layers of mobilenet, as conv_dw_12: .* trained"):
        load_classifier("mobilenet", str(tmp_path / "part.npz"))
    np.savez(tmp_path / "whole.npz", **mobilenet_arrays)
    whole = load_classifier("mobilenet", str(tmp_path / "whole.npz")).model
    assert [each.path for each in whole.weights] == list(mobilenet_arrays)


def test_arrays_that_do_not_fit_are_refused(
    mobilenet_arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **{"conv1/kernel": np.zeros((3, 3, 3, 64), np.float32)})
    with pytest.raises(UserError, match=r"conv1/kernel must have the shape \(3, 3, 3, 32\)"):
        load_network("mobilenet", str(path))
    np.savez(path, **{"conv1/kernal": mobilenet_arrays["conv1/kernel"]})
    with pytest.raises(UserError, match=r"hold 'conv1/kernal'.* Did you mean 'conv1/kernel'"):
        load_network("mobilenet", str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read"):
        load_network("mobilenet", str(path))


@pytest.mark.slow
def test_the_real_weights_of_resnet50_up_to_conv4(shared: Path) -> None:
    model, missing = load_network("resnet50", str(shared / "weights" / "resnet50_conv1-4.npz"))
    blocks = {"conv5_block1": "230", "conv5_block2": "123", "conv5_block3": "123"}
    expected = {f"{block}_{part}_conv" for block, parts in blocks.items() for part in parts}
    assert set(missing) == {*expected, "predictions"}
    # Batch norms and kernels of one network: its variances are those of what the kernels make.
    images = np.random.default_rng(0).uniform(-100, 100, (1, 224, 224, 3)).astype(np.float32)
    maps = keras.Model(model.input, model.get_layer("conv4_block6_out").output)(images)
    assert maps.shape == (1, 14, 14, 1024)
    assert 0.01 < float(np.mean(maps)) < 10


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.keras").write_bytes(tiny_model.read_bytes())
    write_card(tmp_path / "mine", {"classes": ["a", "b", "c"], "preprocess": "mobilenet"})
    return tmp_path / "mine"


def test_a_folder_says_its_classes_and_its_preprocessing(folder: Path) -> None:
    classifier = load_classifier(str(folder))
    assert classifier.class_names == ("a", "b", "c")
    pixel = keras.ops.convert_to_tensor(np.full((1, 1, 1, 3), 255, np.float32))
    assert np.ravel(classifier.preprocess(pixel)).tolist() == [1.0, 1.0, 1.0]
    plain = load_classifier(str(folder), preprocess="none")
    assert np.ravel(plain.preprocess(pixel)).tolist() == [255.0, 255.0, 255.0]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "no readable card of a model"),
        ("[]", "no readable card of a model"),
        ('{"schema": 1, "classes": ["a"]}', "no readable card of a model: KeyError"),
        ('{"schema": 2, "classes": ["a"], "preprocess": "none"}', "has schema 2, and not 1"),
        ('{"schema": 1, "classes": "abc", "preprocess": "none"}', "must be a list of names"),
        ('{"schema": 1, "classes": ["a"], "preprocess": "none"}', "names 1 classes, .* 3 outputs"),
    ],
)
def test_a_card_that_is_wrong_is_told(folder: Path, card: str, message: str) -> None:
    (folder / "card.json").write_text(card)
    with pytest.raises(UserError, match=message):
        load_classifier(str(folder))


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no model folder: it lacks card.json"):
        load_classifier(str(tmp_path))
