"""Presets of KerasHub as models: saved locally, and the mistakes of names, folders and networks."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest

from kgradcam import GradCAM
from kgradcam.errors import UserError
from kgradcam.models.classifier import OWN, load_classifier
from kgradcam.models.network import require_model
from kgradcam.training import TrainingConfiguration, plan_training


def test_without_the_package_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UserError, match=r"need KerasHub .*pip install 'kgradcam\[hub\]'"):
        require_model("hub:resnet_50_imagenet")


def test_a_preset_is_not_trained() -> None:
    with pytest.raises(UserError, match="preset of KerasHub cannot be trained here"):
        plan_training(TrainingConfiguration(dataset="demo", model="hub:resnet_50_imagenet"))


@pytest.fixture(scope="module")
def hub() -> Any:
    return pytest.importorskip("keras_hub", reason="needs KerasHub, an extra")


@pytest.fixture(scope="module")
def task(hub: Any) -> Any:
    """A residual network of four classes for pixels in -1..1, at 32 pixels."""
    keras.utils.set_random_seed(0)
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    )
    converter = hub.layers.ResNetImageConverter(
        image_size=(32, 32), scale=[1 / 127.5] * 3, offset=[-1.0] * 3
    )
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(converter)
    return hub.models.ResNetImageClassifier(backbone, 4, preprocessor)


@pytest.fixture
def folder(task: Any, tmp_path: Path) -> Path:
    task.save_to_preset(str(tmp_path / "preset"))
    return tmp_path / "preset"


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)


def test_a_preset_has_its_weights_size_and_preprocessing(task: Any, folder: Path) -> None:
    classifier = load_classifier(f"hub:{folder}", image_size=OWN)
    assert (classifier.own_size, classifier.class_names) == ((32, 32), None)
    assert (classifier.image_size, classifier.channels, classifier.class_count) == (None, 3, 4)
    found = classifier.model(classifier.preprocess(IMAGES))
    np.testing.assert_allclose(found, task.predict(IMAGES, verbose=0), atol=1e-5)
    np.testing.assert_allclose(classifier.preprocess(IMAGES), IMAGES / 127.5 - 1, atol=1e-6)
    # Other sizes stay as they are; `predict` would resize them.
    assert classifier.preprocess(np.zeros((1, 64, 48, 3), np.float32)).shape == (1, 64, 48, 3)
    cam = GradCAM(classifier.model, preprocess=classifier.preprocess)
    np.testing.assert_allclose(
        cam(IMAGES, classes=[2]).heatmaps, GradCAM(task)(IMAGES, classes=[2]).heatmaps, rtol=1e-3
    )
    other = load_classifier(f"hub:{folder}", preprocess="0..1")
    np.testing.assert_allclose(other.preprocess(IMAGES), IMAGES / 255, atol=1e-6)


@pytest.mark.slow
def test_commands_take_a_preset(folder: Path, kgradcam: Any, make_voc: Any, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nfox\nowl\n")
    picture = tmp_path / "a.png"
    PIL.Image.fromarray(IMAGES[0].astype(np.uint8)).save(picture)
    options = ("--model", f"hub:{folder}", "--names", names)
    result = kgradcam(
        *("explain", picture, *options, "--class", "dog", "--out", tmp_path / "b.png", "--json")
    )
    assert result.code == 0, result.err
    (finding,) = json.loads(result.out)["findings"]
    assert finding["class_name"] == "dog"
    data = make_voc("data")
    data.add("a", [("dog", (4, 4, 20, 24))])
    result = kgradcam("detect", "--dataset", data.root, *options, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "run/run.json").read_text())["configuration"]["image_size"] == 64
    result = kgradcam("layers", f"hub:{folder}")
    assert result.code == 0, result.err
    assert "stack1_block0_out" in result.out


def test_names_of_the_list(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    require_model("hub:resnet_50_imagenet")
    with pytest.raises(UserError, match=r"a folder with one\. Did you mean 'resnet_50_imagenet'"):
        require_model("hub:resnet50_imagenet")
    with pytest.raises(UserError, match=r"`--model hub:` lists the names"):
        require_model("hub:zzz")
    with pytest.raises(UserError, match=r"Names: .*resnet_18_imagenet, .*resnet_50_imagenet"):
        require_model("hub:")
    with pytest.raises(UserError, match=r"huggingface_hub or kagglehub, and give its folder"):
        require_model("hub:hf://someone/preset")

    def fail(*arguments: Any, **more: Any) -> None:
        raise ConnectionError("Failed to resolve 'www.kaggle.com'\nand more")

    monkeypatch.setattr("kagglehub.model_download", fail)
    with pytest.raises(UserError) as raised:
        load_classifier("hub:resnet_50_imagenet")
    assert str(raised.value) == (
        "hub:resnet_50_imagenet is not in the cache of kagglehub, and cannot be downloaded: "
        "Failed to resolve 'www.kaggle.com'"
    )


def test_a_preset_of_the_list_has_the_names_of_imagenet(
    hub: Any, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hub.models.ResNetImageClassifier(task.backbone, 1000)
    monkeypatch.setattr(hub.models.ImageClassifier, "from_preset", lambda name: whole)
    classifier = load_classifier("hub:resnet_50_imagenet")
    assert classifier.class_names is not None
    assert classifier.class_names[281] == "tabby"
    np.testing.assert_array_equal(classifier.preprocess(IMAGES), IMAGES)  # it has no preprocessor
    assert classifier.pixels == "pixels in 0..255 (if it was trained on 0..1: --scale-pixels)"
    scaled = load_classifier("hub:resnet_50_imagenet", preprocess="0..1")
    assert scaled.pixels == "pixels in 0..1"


def test_folders_that_are_no_classifier(task: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nor a folder with one"):
        require_model(f"hub:{tmp_path / 'gone'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot be loaded as an image classifier.*no config.json"):
        load_classifier(f"hub:{tmp_path / 'empty'}")
    task.backbone.save_to_preset(str(tmp_path / "backbone"))
    with pytest.raises(UserError, match="a backbone without a head"):
        load_classifier(f"hub:{tmp_path / 'backbone'}")
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    weights = damaged / "task.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded as an image classifier"):
        load_classifier(f"hub:{damaged}")


def test_a_folder_that_may_run_code_is_refused(folder: Path) -> None:
    path = folder / "task.json"
    content = json.loads(path.read_text())
    content["config"]["preprocessor"] = {"module": "keras.layers", "class_name": "Lambda"}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"task.json holds a Lambda layer, which may run code"):
        load_classifier(f"hub:{folder}")
