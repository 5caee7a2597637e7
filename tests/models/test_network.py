"""Networks by name: which exist, and their weights from files."""

import os
import urllib.request
import zipfile
from pathlib import Path

import h5py
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
    with pytest.raises(UserError, match=r"conv1/kernel must be .* of the shape \(3, 3, 3, 32\)"):
        load_network("mobilenet", str(path))
    np.savez(path, **{"conv1/kernal": mobilenet_arrays["conv1/kernel"]})
    with pytest.raises(UserError, match=r"'conv1/kernal' is not .* Did you mean 'conv1/kernel'"):
        load_network("mobilenet", str(path))


def test_damaged_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    files = {
        "text.npz": b"no archive",
        "empty.npz": b"",
        "text.h5": b"no archive",
        "empty.weights.h5": b"",
        "text.keras": b"no archive",
        "other.weights.json": b"{}",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez(tmp_path / "pickle.npz", **{"conv1/kernel": np.array([None])})
    np.savez(tmp_path / "text_array.npz", **{"conv1/kernel": np.full((3, 3, 3, 32), "a")})
    with zipfile.ZipFile(tmp_path / "no_array.npz", "w") as file:
        file.writestr("conv1/kernel.npy", b"no array")
    for name in (*files, "array.npz", "pickle.npz", "text_array.npz", "no_array.npz"):
        with pytest.raises(UserError, match=rf"{name}' do not fit mobilenet: "):
            load_network("mobilenet", str(tmp_path / name))
    os.mkfifo(tmp_path / "pipe.npz")
    for name in (str(tmp_path / "pipe.npz"), "/dev/zero", str(tmp_path)):
        with pytest.raises(UserError, match="neither 'imagenet' nor a file"):
            load_network("mobilenet", name)


def test_a_file_that_lacks_layers_is_refused(tmp_path: Path) -> None:
    """Keras would leave these layers random: a warning in some formats, silence in others."""
    whole = keras.applications.MobileNet(weights=None)
    part = keras.Model(whole.input, whole.get_layer("conv_pw_3_relu").output)
    part.save_weights(tmp_path / "part.weights.h5")
    with pytest.raises(UserError, match="do not fit mobilenet: 35 arrays instead of 137"):
        load_network("mobilenet", str(tmp_path / "part.weights.h5"))


def test_weights_in_other_files_are_refused(mobilenet_weights: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "linked.weights.h5", "w") as file:
        file["layers"] = h5py.ExternalLink(str(mobilenet_weights), "layers")
    with pytest.raises(UserError, match="do not fit mobilenet: its '/layers' is a link"):
        load_network("mobilenet", str(tmp_path / "linked.weights.h5"))


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
