"""Networks by name: which exist, and their weights from files."""

import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.models.classifier import load_classifier
from kgradcam.models.network import load_network, model_names


def test_names_of_keras_applications_and_ours() -> None:
    assert {"efficientnet-lite0", "resnet50", "vgg16", "mobilenetv3small", "convnexttiny"} < set(
        model_names()
    )


def test_a_failed_download_is_an_error_with_alternatives(
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


def test_incomplete_arrays_are_assigned_and_the_missing_layers_returned(
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
    with pytest.raises(UserError, match=r"lack 4 layers of mobilenet, such as conv_dw_12. Train"):
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
    # Maps of moderate size: the normalization statistics belong to these kernels.
    images = np.random.default_rng(0).uniform(-100, 100, (1, 224, 224, 3)).astype(np.float32)
    maps = keras.Model(model.input, model.get_layer("conv4_block6_out").output)(images)
    assert maps.shape == (1, 14, 14, 1024)
    assert 0.01 < float(np.mean(maps)) < 10
