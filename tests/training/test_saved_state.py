"""Checkpoint files: exact values, and damage."""

import os

import keras
import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.training.saved_state import load_checkpoint, save_checkpoint

HISTORY = [{"epoch": 1, "stage": "head", "loss": 0.1, "map": 1 / 3, "learning_rate": 1e-3}]


def variables(value: float) -> list[keras.Variable]:
    return [
        keras.Variable(np.full((2, 3), value, np.float32)),
        keras.Variable(value, dtype="float16"),
    ]


def test_a_checkpoint_restores_the_exact_values(tmp_path) -> None:
    save_checkpoint(tmp_path / "a.npz", variables(1 / 3), HISTORY, 12.5)
    restored = variables(0)
    assert load_checkpoint(tmp_path / "a.npz", restored) == (HISTORY, 12.5)
    for found, expected in zip(restored, variables(1 / 3), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"]


def test_a_checkpoint_of_other_variables_is_rejected(tmp_path) -> None:
    save_checkpoint(tmp_path / "a.npz", variables(1), HISTORY, 0)
    with pytest.raises(UserError, match=r"a.npz is damaged or belongs to another training"):
        load_checkpoint(tmp_path / "a.npz", [keras.Variable(np.zeros((3, 2)))])
    with pytest.raises(UserError, match=r"a.npz is damaged or belongs to another training"):
        load_checkpoint(tmp_path / "a.npz", [*variables(1), keras.Variable(0.0)])


def test_every_truncation_and_many_changed_bytes_are_noticed(tmp_path) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, variables(1), HISTORY, 2)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="is damaged"):
            load_checkpoint(path, variables(0))
    draw = np.random.default_rng(0)
    noticed = 0
    for _ in range(500):
        changed = np.frombuffer(data, np.uint8).copy()
        changed[draw.integers(len(data))] ^= draw.integers(1, 256)
        path.write_bytes(changed.tobytes())
        restored = variables(0)
        try:
            state = load_checkpoint(path, restored)
        except UserError:
            noticed += 1
        else:  # bytes without meaning, such as dates
            assert state == (HISTORY, 2)
            for found, expected in zip(restored, variables(1), strict=True):
                np.testing.assert_array_equal(found, expected)
    assert noticed > 300


def test_values_of_another_kind_are_rejected(tmp_path) -> None:
    """TensorFlow's own error would be a traceback."""
    variable = keras.Variable(np.zeros(2, np.float32))
    save_checkpoint(tmp_path / "good.npz", [variable], [], 1.0)
    with np.load(tmp_path / "good.npz") as file:
        state = file["state"]
    for values in (np.array(["a", "b"]), np.zeros(2), np.zeros(3, np.float32)):
        np.savez(tmp_path / "bad.npz", state=state, **{"0": values})
        with pytest.raises(UserError, match="bad.npz is damaged .*a variable must be float32 of"):
            load_checkpoint(tmp_path / "bad.npz", [variable])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_rejected(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match="is not a regular file"):
        load_checkpoint(tmp_path / "pipe.npz")
