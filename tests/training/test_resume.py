"""Interrupted trainings: what a resumed one compares, continues, refuses and removes."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import StopError, stop_after

from kgradcam.errors import UserError
from kgradcam.models.classifier import load_classifier
from kgradcam.training import TrainingConfiguration, read_plan, train


def test_a_training_resumes_in_the_same_process(
    configuration: TrainingConfiguration, interrupted: Path
) -> None:
    with pytest.raises(UserError, match=r"training of .* is not finished: kgradcam train --resume"):
        load_classifier(str(interrupted))
    with pytest.raises(UserError, match=r"already exists.*--force, or continue with --resume"):
        train(configuration, interrupted)
    assert read_plan(interrupted) == configuration
    with pytest.raises(StopError):
        train(configuration, interrupted, resume=True, report=stop_after(2))
    lines: list[str] = []
    card = train(configuration, interrupted, resume=True, report=lines.append)
    assert len(lines) == 3
    assert len(card["history"]) == 6
    with pytest.raises(UserError, match=r"no interrupted training in .* It is finished"):
        read_plan(interrupted)
    with pytest.raises(UserError, match=r"no interrupted training in .* It is finished"):
        train(configuration, interrupted, resume=True)


def test_another_configuration_does_not_resume(
    configuration: TrainingConfiguration, interrupted: Path
) -> None:
    with pytest.raises(
        UserError,
        match=r"configuration.epochs: 4 then, 9 now; configuration.seed: 0 then, 1 now",
    ):
        train(replace(configuration, seed=1, epochs=9), interrupted, resume=True)


def change_a_pixel(squares: Path, backbone: Path) -> str:
    shutil.copy(squares / "JPEGImages/02.jpg", squares / "JPEGImages/01.jpg")
    return r"differently: inputs.data.training.files: \"\w{16}\" then, \"\w{16}\" now\. Restore"


def change_a_box(squares: Path, backbone: Path) -> str:
    path = squares / "Annotations/16.xml"
    path.write_text(path.read_text("utf-8").replace("<xmin>9<", "<xmin>8<"), "utf-8")
    return r"differently: inputs.data.validation.annotations: \S+ then, \S+ now\. Restore"


def remove_an_image(squares: Path, backbone: Path) -> str:
    path = squares / "ImageSets/Main/train.txt"
    path.write_text(path.read_text("utf-8").replace("15\n", ""), "utf-8")
    return r"inputs.data.training.images: 16 then, 15 now; inputs.data.training.annotations: "


def remove_a_class(squares: Path, backbone: Path) -> str:
    for path in (squares / "Annotations").iterdir():
        path.write_text(path.read_text("utf-8").replace("small", "large"), "utf-8")
    return r'inputs.data.classes: \["large", "small"\] then, \["large"\] now'


def change_weights(squares: Path, backbone: Path) -> str:
    model = keras.models.load_model(backbone)
    model.get_layer("late").kernel.assign_add(np.ones((3, 3, 8, 8)))
    model.save(backbone)
    return r"differently: inputs.backbone.weights: \S+ then, \S+ now\. Restore"


def change_an_activation(squares: Path, backbone: Path) -> str:
    model = keras.models.load_model(backbone)

    def rebuild(layer):
        config = layer.get_config()
        if layer.name == "late":
            config["activation"] = "tanh"
        return type(layer).from_config(config)

    changed = keras.models.clone_model(model, clone_function=rebuild)
    changed.set_weights(model.get_weights())
    changed.save(backbone)
    return r"differently: inputs.backbone.layers: \S+ then, \S+ now\. Restore"


@pytest.mark.parametrize(
    "change",
    [
        change_a_pixel,
        change_a_box,
        remove_an_image,
        remove_a_class,
        change_weights,
        change_an_activation,
    ],
)
def test_other_inputs_do_not_resume(
    configuration: TrainingConfiguration,
    squares: Path,
    backbone: Path,
    tmp_path: Path,
    change: Callable[[Path, Path], str],
) -> None:
    own = Path(shutil.copy(backbone, tmp_path / "own.keras"))  # `backbone` serves all tests
    configuration = replace(configuration, model=str(own))
    with pytest.raises(StopError):
        train(configuration, tmp_path / "model", report=stop_after(1))
    message = change(squares, own)
    with pytest.raises(UserError, match=message):
        train(configuration, tmp_path / "model", resume=True)


@pytest.mark.parametrize("name", ["checkpoint.npz", "best.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\0" * 5000])
def test_a_damaged_checkpoint_is_reported_before_the_training(
    configuration: TrainingConfiguration, interrupted: Path, name: str, content: bytes
) -> None:
    (interrupted / "unfinished" / name).write_bytes(content)
    lines: list[str] = []
    with pytest.raises(UserError, match=rf"{name} is damaged .* Start again with --force") as told:
        train(configuration, interrupted, resume=True, report=lines.append)
    assert "\n" not in str(told.value)
    assert lines == []
    train(replace(configuration, head_epochs=1, epochs=0), interrupted, force=True)


@pytest.mark.parametrize("step", ["save", "write_card"])
def test_a_replaced_model_stays_until_the_new_one_is_complete(
    configuration: TrainingConfiguration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    path = tmp_path / "model"
    train(replace(configuration, head_epochs=1, epochs=0, classes=("small",)), path)
    with pytest.raises(StopError):
        train(configuration, path, force=True, report=stop_after(3))
    assert load_classifier(str(path)).class_names == ("small",)

    def stop(*arguments: object) -> None:
        raise StopError

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["kgradcam.training.train"], step, stop)
        with pytest.raises(StopError):
            train(configuration, path, resume=True)
    # Between the two models there is none, rather than a new model with the old card.
    with pytest.raises(UserError, match="is not finished"):
        load_classifier(str(path))
    card = train(configuration, path, resume=True)
    assert len(card["history"]) == 6
    assert load_classifier(str(path)).class_names == ("large", "small")
    names = {each.name for each in path.iterdir()}
    assert names == {"card.json", "curves.png", "held-out.json", "logs", "model.keras"}


def command(folder: Path, *options: object) -> list[str]:
    program = "from kgradcam.cli import main; main()"
    return [sys.executable, "-c", program, "train", "--out", str(folder), *map(str, options)]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(
    squares: Path, backbone: Path, tmp_path: Path
) -> None:
    options = (
        *("--dataset", squares, "--model", backbone, "--image-size", 32, "--batch-size", 4),
        *("--head-epochs", 10, "--epochs", 30, "--patience", 0, "--hide", 0.5, "--quiet"),
    )
    subprocess.run(command(tmp_path / "whole", *options), check=True, capture_output=True)
    folder, moments, kills = tmp_path / "killed", random.Random(), 0
    arguments = command(folder, *options)
    while True:
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        checkpoint, begin = folder / "unfinished" / "checkpoint.npz", time.time()
        while kills < 3 and process.poll() is None:
            # Not while TensorFlow is imported, but anywhere in the epochs after.
            if checkpoint.is_file() and checkpoint.stat().st_mtime > begin:
                time.sleep(moments.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
        kills += 1
        arguments = command(folder, "--resume", "--quiet")
    assert kills == 3
    whole, killed = (
        json.loads((each / "card.json").read_text("utf-8")) for each in (tmp_path / "whole", folder)
    )
    assert whole["history"] == killed["history"]
    assert whole["metrics"] == killed["metrics"]
    weights = [
        load_classifier(str(each)).model.get_weights() for each in (tmp_path / "whole", folder)
    ]
    for expected, found in zip(*weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not checkpoint.exists()
