"""Untrusted `.keras` files: objects of Keras are loaded, others are refused before Keras runs."""

import io
import json
import os
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from helpers import PLAIN, rewrite_keras_file

from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UserError
from kgradcam.evaluation.explanations import faithfulness_of_run
from kgradcam.models.classifier import load_classifier
from kgradcam.models.keras_file import read_model
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect


@pytest.fixture
def lambda_model(tmp_path: Path) -> Path:
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Lambda(lambda x: x / 255),
            keras.layers.Conv2D(2, 2, strides=2, name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    model.save(tmp_path / "lambda.keras")
    return tmp_path / "lambda.keras"


def test_a_lambda_needs_trust(lambda_model: Path) -> None:
    with pytest.raises(UserError, match=r"lambda.keras holds a Lambda layer.*--trust-model"):
        load_classifier(str(lambda_model))
    classifier = load_classifier(str(lambda_model), trusted=True)
    assert classifier.model(np.full((1, 4, 4, 3), 255.0)).shape == (1, 3)


def test_a_run_cannot_make_its_model_trusted(lambda_model: Path, pets, tmp_path: Path) -> None:
    """The author of a run folder can write `trusted: true` into its run.json."""
    configuration = Configuration(
        dataset=str(pets.root),
        classes=("dog=2",),
        model=str(lambda_model),
        boxes=BoxOptions("single-threshold", 0, "heat"),
        **PLAIN,
        trusted=True,
    )
    run = detect(configuration, tmp_path / "run")
    assert run.info.configuration.trusted is True
    with pytest.raises(UserError, match="holds a Lambda layer"):
        faithfulness_of_run(run, limit=1)
    assert faithfulness_of_run(run, limit=1, trusted=True).rows


def test_registered_classes_are_admitted(tiny_model: Path, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("kgradcam_tests")
    class Twice(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    keras.Sequential([keras.Input((4, 4, 3)), Twice()]).save(tmp_path / "own.keras")
    assert read_model(tmp_path / "own.keras")(np.ones((1, 4, 4, 3))).numpy().max() == 2


def keep(content: Any) -> None:
    """Leaves the configuration as it is."""


def test_entries_that_keras_does_not_write_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("../../evil.py", "assets/vocabulary.txt", "model.weights.npz", "/etc/passwd"):
        path = rewrite_keras_file(tiny_model, tmp_path / "a.keras", keep, {name: b""})
        with pytest.raises(UserError, match=f"cannot be loaded .*it holds '{name}'"):
            read_model(path)
    with zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b" " * 10**7)
    with pytest.raises(UserError, match="it is compressed"):
        read_model(tmp_path / "b.keras")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile's, while it writes
def test_two_entries_of_one_name_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """The check and Keras could each read another one."""
    evil = b'{"class_name": "Popen", "module": "subprocess"}'
    path = rewrite_keras_file(tiny_model, tmp_path / "a.keras", keep, {"config.json": evil})
    with pytest.raises(UserError, match="it holds two entries of one name"):
        read_model(path)


def test_a_symbolic_link_in_the_archive_is_plain_text(tiny_model: Path, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tiny_model) as old,
        zipfile.ZipFile(tmp_path / "link.keras", "w") as new,
    ):
        for name in ("metadata.json", "config.json"):
            new.writestr(name, old.read(name))
        link = zipfile.ZipInfo("model.weights.h5")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        new.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="cannot be loaded .*file signature not found"):
        read_model(tmp_path / "link.keras")


def test_damaged_files_are_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    whole = tiny_model.read_bytes()
    path = tmp_path / "a.keras"
    for content in (b"", b"PK", whole[:100], whole[:-30], whole[1000:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.keras cannot be loaded as a Keras model: \S"):
            read_model(path)
    for config in (b"", b"[]", b"null", b"[" * 100_000, b'"\\ud800"', b"9" * 5000, b"\xff"):
        with zipfile.ZipFile(tiny_model) as old, zipfile.ZipFile(path, "w") as new:
            new.writestr("metadata.json", "{}")
            new.writestr("config.json", config)
            new.writestr("model.weights.h5", old.read("model.weights.h5"))
        with pytest.raises(UserError, match=r"a.keras cannot be loaded as a Keras model: \S"):
            read_model(path)


def test_layers_nested_hundreds_deep_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    def nest(content: Any) -> None:
        for _ in range(300):
            wrapped = content["config"]["layers"][1]
            content["config"]["layers"][1] = {
                "module": "keras.layers",
                "class_name": "TimeDistributed",
                "config": {"layer": wrapped},
                "registered_name": None,
            }

    path = rewrite_keras_file(tiny_model, tmp_path / "a.keras", nest)
    with pytest.raises(UserError, match="cannot be loaded as a Keras model"):
        read_model(path)


def test_a_graph_that_never_ends_is_refused(tmp_path: Path) -> None:
    """Keras before 3.14.1 waits for ever for the inputs of a layer that is its own input."""
    inputs = keras.Input((4, 4, 3), name="input")
    keras.Model(inputs, keras.layers.ReLU(name="relu")(inputs)).save(tmp_path / "a.keras")

    def tie(content: Any) -> None:
        (node,) = content["config"]["layers"][1]["inbound_nodes"]
        node["args"][0]["config"]["keras_history"][0] = "relu"

    path = rewrite_keras_file(tmp_path / "a.keras", tmp_path / "cycle.keras", tie)
    with pytest.raises(UserError, match="cycle.keras cannot be loaded .* loops or disconnected"):
        read_model(path)


def test_other_than_regular_files_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "folder.keras").mkdir()
    os.mkfifo(tmp_path / "pipe.keras")
    (tmp_path / "device.keras").symlink_to("/dev/zero")
    for name in ("folder.keras", "pipe.keras", "device.keras", "missing.keras"):
        with pytest.raises(UserError, match=f"No model file .*{name}"):
            read_model(tmp_path / name)


def test_weights_that_link_elsewhere_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    linked = io.BytesIO()
    with h5py.File(linked, "w") as file:
        file["layers"] = h5py.ExternalLink("/tmp/other.h5", "layers")
    with (
        zipfile.ZipFile(tiny_model) as old,
        zipfile.ZipFile(tmp_path / "a.keras", "w") as new,
    ):
        for name in ("metadata.json", "config.json"):
            new.writestr(name, old.read(name))
        new.writestr("model.weights.h5", linked.getvalue())
    with pytest.raises(UserError, match="a.keras cannot be loaded .* its '/layers' is a link"):
        read_model(tmp_path / "a.keras")


def test_threads_load_models_at_once(tiny_model: Path) -> None:
    """Keras' safe mode and its custom objects are settings of each thread."""
    expected = [variable.numpy() for variable in read_model(tiny_model).weights]
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(read_model, [tiny_model] * 12))
    for model in models:
        for variable, values in zip(model.weights, expected, strict=True):
            np.testing.assert_array_equal(variable, values)
    assert float(np.std(keras.layers.Dense(8).kernel_initializer((8, 8)))) > 0


@pytest.mark.parametrize("name", ["MobileNet", "EfficientNetB0", "ConvNeXtTiny", "ResNet50V2"])
def test_keras_applications_are_admitted(name: str, tmp_path: Path) -> None:
    model = getattr(keras.applications, name)(weights=None, classes=2)
    model.save(tmp_path / "own.keras")
    assert read_model(tmp_path / "own.keras").count_params() == model.count_params()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_functional_models_in_hdf5_files_of_keras_3(tmp_path: Path) -> None:
    """Their calls are written as in a `.keras` file, without the modules of classes."""
    image = keras.Input((8, 6, 3))
    inner = keras.Sequential([keras.Input((8, 6, 3)), keras.layers.Conv2D(3, 3, padding="same")])
    joined = keras.layers.Concatenate()([image, keras.layers.Add()([image, inner(image)])])
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(joined)))
    model.save(tmp_path / "m.h5")
    images = np.random.default_rng(0).uniform(size=(2, 8, 6, 3))
    np.testing.assert_array_equal(read_model(tmp_path / "m.h5")(images), model(images))
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        content = json.loads(file.attrs["model_config"])
        content["config"]["layers"][2]["inbound_nodes"] = [{"args": [1.0], "kwargs": {}}]
        file.attrs["model_config"] = json.dumps(content)
    with pytest.raises(UserError, match="holds a call of .* without an input"):
        read_model(tmp_path / "m.h5")
    keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image + image))).save(
        tmp_path / "sum.h5"
    )
    with pytest.raises(UserError, match=r"cannot be loaded.* no operations, such as x \+ y"):
        read_model(tmp_path / "sum.h5")
