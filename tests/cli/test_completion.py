"""Completion in the shell: names of methods, models, protocols and layers, without TensorFlow."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from networks import backbone, head

from kgradcam.cli import completion
from kgradcam.heatmaps.methods import METHODS
from kgradcam.models import model_names


@pytest.fixture
def complete(tmp_path: Path) -> Callable[[str], list[str]]:
    """Completes the last word of a command line as bash does, in a new process."""
    program = (
        "import sys; from kgradcam.cli import main\n"
        "try: main()\n"
        "finally: print('tensorflow' in sys.modules, 'keras' in sys.modules, file=sys.stderr)"
    )

    def run(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **words, "_KGRADCAM_COMPLETE": "complete_bash"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "False False\n")
        return done.stdout.split()

    return run


def test_names_are_those_of_the_package(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tuple(METHODS) == completion.METHODS
    assert completion.models("") == model_names()
    for name in (".hidden", "models/mine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mine.keras").touch()
    (tmp_path / "mine.txt").touch()
    assert completion.models("m")[-2:] == ["mine.keras", "models/"]
    assert completion.models("models/") == ["models/mine/"]
    assert completion.models("nowhere/") == []


def test_methods_models_and_protocols(complete) -> None:
    assert complete("kgradcam explain cat.jpg --method gr") == ["gradcam", "gradcam++"]
    assert complete("kgradcam detect --model resnet50") == ["resnet50", "resnet50v2"]
    assert complete("kgradcam evaluate runs/cat --protocol voc") == ["voc2007", "voc2010"]
    assert complete("kgradcam layers efficientnet-l") == ["efficientnet-lite0"]


def test_layers_of_a_file(complete, tmp_path: Path) -> None:
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, head(backbone()(inputs)))
    model.save(tmp_path / "nested.keras")
    (tmp_path / "damaged.keras").write_bytes(b"no zip")
    outer = model.layers[1]
    expected = [f"{outer.name}/{layer.name}" for layer in outer.layers[1:]]
    found = complete(f"kgradcam explain a.jpg --model nested.keras --layer {outer.name}/")
    assert found == expected
    assert complete("kgradcam explain a.jpg --model damaged.keras --layer ") == []
