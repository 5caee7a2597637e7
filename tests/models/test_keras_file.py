"""Untrusted `.keras` files: objects of Keras are loaded, others are refused before Keras runs."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import PLAIN

from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UserError
from kgradcam.evaluation.explanations import faithfulness_of_run
from kgradcam.models.classifier import load_classifier
from kgradcam.models.keras_file import read_model
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect


def rewrite(source: Path, target: Path, change: Callable[[Any], None], **more: bytes) -> Path:
    """Copies a `.keras` file with another config.json, and other entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                content = json.loads(data)
                change(content)
                data = json.dumps(content).encode()
            new.writestr(name, data)
        for name, data in more.items():
            new.writestr(name, data)
    return target


def first_layer(**described: Any) -> Callable[[Any], None]:
    """Replaces the convolution of the model by the described object."""

    def change(content: Any) -> None:
        content["config"]["layers"][1] = described

    return change


def activation(**described: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        content["config"]["layers"][1]["config"]["activation"] = described

    return change


TOUCH = {"command": "touch {trace}"}
HOSTILE = {
    "any function of any module (CVE-2025-1550)": (
        first_layer(
            class_name="function",
            config="system",
            module="os",
            registered_name="function",
            inbound_nodes=[{"args": ["touch {trace}"], "kwargs": {}}],
        ),
        "the function os.system",
    ),
    "a builtin function": (
        activation(class_name="function", config="eval", module="builtins"),
        "the function builtins.eval",
    ),
    "a function of Keras that fetches files (CVE-2025-8747)": (
        activation(class_name="function", config="get_file", module="keras.utils"),
        "the function keras.utils.get_file",
    ),
    "a function that disables the safe mode (CVE-2025-9906)": (
        first_layer(
            class_name="function",
            config="enable_unsafe_deserialization",
            module="keras.config",
            registered_name="function",
        ),
        "the function keras.config.enable_unsafe_deserialization",
    ),
    "a SavedModel (CVE-2026-1462)": (
        first_layer(
            class_name="TFSMLayer", module="keras.layers", config={"filepath": "/tmp/evil"}
        ),
        "a TFSMLayer layer",
    ),
    "a pickled PyTorch module (CVE-2025-49655)": (
        first_layer(class_name="TorchModuleWrapper", module="keras.layers", config={}),
        "a TorchModuleWrapper layer",
    ),
    "a class of another package": (
        first_layer(class_name="Popen", module="subprocess", config={"args": "touch {trace}"}),
        "subprocess.Popen",
    ),
    "a module that merely begins like Keras": (
        first_layer(class_name="Layer", module="keras_evil.layers", config={}),
        "keras_evil.layers.Layer",
    ),
    "a lambda without its layer": (
        activation(class_name="__lambda__", config={"value": "4wEAAAA="}),
        "a lambda layer",
    ),
    "a vocabulary from any file": (
        first_layer(
            class_name="StringLookup", module="keras.layers", config={"vocabulary": "/etc/passwd"}
        ),
        "a StringLookup layer",
    ),
}


@pytest.mark.parametrize(("change", "what"), HOSTILE.values(), ids=HOSTILE.keys())
def test_foreign_objects_are_refused_before_keras_runs(
    tiny_model: Path, tmp_path: Path, change: Callable[[Any], None], what: str
) -> None:
    path = rewrite(tiny_model, tmp_path / "evil.keras", change)
    text = zipfile.ZipFile(path).read("config.json").replace(b"{trace}", bytes(tmp_path / "trace"))
    path = rewrite(path, tmp_path / "evil2.keras", lambda content: content.update(json.loads(text)))
    with pytest.raises(UserError, match=rf"evil2.keras holds {what}.*--trust-model"):
        load_classifier(str(path))
    assert not (tmp_path / "trace").exists()


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
    # A registered name does not admit a function.
    stolen = rewrite(
        tiny_model,
        tmp_path / "stolen.keras",
        activation(
            class_name="function",
            config="system",
            module="os",
            registered_name="kgradcam_tests>Twice",
        ),
    )
    with pytest.raises(UserError, match=r"the function os.system"):
        read_model(stolen)


def test_other_archives_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    def keep(content: Any) -> None:
        pass

    escaping = rewrite(tiny_model, tmp_path / "a.keras", keep, **{"../../evil.py": b""})
    with pytest.raises(UserError, match=r"cannot be loaded .*it holds '../../evil.py'"):
        read_model(escaping)
    with zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b" " * 10**7)
    with pytest.raises(UserError, match="it is compressed"):
        read_model(tmp_path / "b.keras")
    with zipfile.ZipFile(tmp_path / "c.keras", "w") as file:
        file.writestr("config.json", "[" * 100_000)
    with pytest.raises(UserError, match=r"c.keras cannot be loaded"):
        read_model(tmp_path / "c.keras")


@pytest.mark.parametrize("name", ["MobileNet", "EfficientNetB0", "ConvNeXtTiny", "ResNet50V2"])
def test_keras_applications_are_admitted(name: str, tmp_path: Path) -> None:
    model = getattr(keras.applications, name)(weights=None, classes=2)
    model.save(tmp_path / "own.keras")
    assert read_model(tmp_path / "own.keras").count_params() == model.count_params()
