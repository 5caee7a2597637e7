"""`kgradcam export-model`: from a model file to a SavedModel."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf


def test_a_model_file_is_exported(kgradcam: Callable, tiny_model: Path, tmp_path: Path) -> None:
    arguments = ("export-model", tiny_model, "--out", tmp_path / "net" / "1", "--size", "any")
    result = kgradcam(*arguments, "--class", "2", "--class", "0-1", "--max-boxes", 4)
    assert (result.code, result.out) == (0, f"{tmp_path / 'net' / '1'}\n")
    assert "Signatures: serving_default, explain" in result.err
    images = np.zeros((1, 20, 40, 3), np.uint8)
    images[:, 5:11, 8:20] = 255
    found = tf.saved_model.load(tmp_path / "net" / "1").signatures["explain"](images=images)
    assert found["heatmaps"].shape == (1, 2, 10, 20)
    assert found["boxes"].shape == (1, 2, 4, 4)
    # A map of half the size: the borders are known to a cell.
    np.testing.assert_allclose(found["boxes"][0, 0, 0], [8, 5, 20, 11], atol=2)
    card = json.loads((tmp_path / "net" / "1" / "card.json").read_text())
    assert card["explained"] == ["2", "0, 1"]
    assert card["model"]["name"] == "tiny.keras"
    assert str(tmp_path) not in json.dumps(card)

    again = kgradcam(*arguments)
    assert again.code == 1
    assert "is already there" in again.err


def test_a_model_file_becomes_a_litert_file(
    kgradcam: Callable, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "net.tflite"
    result = kgradcam("export-model", tiny_model, "--format", "litert", "--size", 16, "--out", out)
    assert (result.code, result.out) == (0, f"{out}\n")
    assert out.read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (("--format", "lite"), 2, "Did you mean 'litert'"),
        (("--format", "litert", "--class", "1"), 2, "are for --format saved-model"),
        (("--size", "0"), 2, "--size must be any, or 1 to 4096"),
        (("--class", "9"), 1, "class must name outputs of the model, 0 to 2"),
        (("--method", "gradcan"), 2, "Did you mean 'gradcam'"),
    ],
)
def test_mistakes(
    given: tuple[str, ...], code: int, message: str, kgradcam: Callable, tiny_model: Path, tmp_path
) -> None:
    result = kgradcam("export-model", tiny_model, "--out", tmp_path / "1", *given)
    assert result.code == code
    assert message in result.err
    assert not (tmp_path / "1").exists()
