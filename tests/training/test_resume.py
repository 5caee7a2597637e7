"""Interrupted trainings, resumed in the same process and after kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.models.classifier import load_classifier
from kgradcam.training import TrainingConfiguration, read_plan, train


def test_a_training_resumes_in_the_same_process(
    configuration: TrainingConfiguration, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop_after(count: int) -> Callable[[str], None]:
        def report(line: str) -> None:
            nonlocal count
            count -= 1
            if not count:
                raise StopError

        return report

    folder = tmp_path / "model"
    with pytest.raises(StopError):
        train(configuration, folder, report=stop_after(1))
    with pytest.raises(UserError, match=r"training of .* is not finished: kgradcam train --resume"):
        load_classifier(str(folder))
    with pytest.raises(UserError, match=r"already exists.*--force, or continue with --resume"):
        train(configuration, folder)
    with pytest.raises(UserError, match="has another configuration"):
        train(replace(configuration, seed=1), folder, resume=True)
    assert read_plan(folder) == configuration
    with pytest.raises(StopError):
        train(configuration, folder, resume=True, report=stop_after(2))
    lines: list[str] = []
    card = train(configuration, folder, resume=True, report=lines.append)
    assert len(lines) == 3
    assert len(card["history"]) == 6
    with pytest.raises(UserError, match=r"no interrupted training in .* It is finished"):
        read_plan(folder)


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
        checkpoint, begin = folder / "checkpoint.npz", time.time()
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
    assert not os.path.exists(checkpoint)
