"""The model folder during a training: damaged plans, the lock, and leftovers of kills."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kgradcam.errors import UserError
from kgradcam.training import TrainingConfiguration, read_plan, train
from kgradcam.training import folder as folders
from kgradcam.training.folder import open_folder


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 100,
        "{",
        "[]",
        "{}",
        '{"configuration": 3, "inputs": {}}',
        '{"configuration": {}, "inputs": {}}',
        "[" * 100_000,
        f'{{"configuration": {"9" * 5000}, "inputs": {{}}}}',  # more digits than Python converts
    ],
)
def test_a_damaged_plan_is_reported(
    configuration: TrainingConfiguration, tmp_path: Path, text: str
) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(UserError, match=r"training.json is no plan of a training") as told:
        read_plan(tmp_path)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"training.json is no plan of a training|differently"):
        train(configuration, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": "3"}, "Expected epochs of type int. Received: '3'"),
        ({"epochs": -1}, r"Expected epochs in \[0, "),
        ({"learning_rate": float("nan")}, r"Expected learning_rate in \[0, .* Received: nan"),
        ({"learning_rate": float("inf")}, r"Expected learning_rate in \[0, .* Received: inf"),
        ({"flip": True}, "unexpected keyword argument 'flip'"),
        ({"classes": [1]}, "Expected classes of type tuple"),
        ({"augmentation": {"hide": 2.0}}, r"Expected augmentation.hide in \[0, 1\]. Received: 2.0"),
        ({"augmentation": {"hide": True}}, "Expected augmentation.hide of type float"),
        ({"augmentation": []}, "Augmentation"),
    ],
)
def test_a_plan_with_invalid_options_is_reported(
    interrupted: Path, values: dict, message: str
) -> None:
    path = interrupted / "training.json"
    plan = json.loads(path.read_text("utf-8"))
    plan["configuration"] |= values
    path.write_text(json.dumps(plan))
    with pytest.raises(UserError, match=message) as told:
        read_plan(interrupted)
    assert str(path) in str(told.value)


def test_two_trainings_never_share_a_folder(
    configuration: TrainingConfiguration, interrupted: Path, tmp_path: Path
) -> None:
    before = {each: each.read_bytes() for each in interrupted.rglob("*") if each.is_file()}
    with open_folder(interrupted, force=False, resume=True, report=print):
        for options in ({"resume": True}, {"force": True}, {}):
            with pytest.raises(UserError, match=r"Another process trains in .*model"):
                train(configuration, interrupted, **options)
    assert before == {each: each.read_bytes() for each in interrupted.rglob("*") if each.is_file()}
    with (
        open_folder(tmp_path / "new", force=False, resume=False, report=print),
        pytest.raises(UserError, match=r"Another process trains in .*new"),
    ):
        train(configuration, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_system_without_locks_is_reported(
    configuration: TrainingConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(lock: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(folders.filelock.FileLock, "acquire", fail)
    with pytest.raises(UserError, match=r"file system of .*model has no locks"):
        train(configuration, tmp_path / "model")


def test_leftovers_of_kills_are_removed_and_reported(
    configuration: TrainingConfiguration, interrupted: Path
) -> None:
    work = interrupted / "unfinished"
    leftovers = [
        *(work / ".checkpoint.npz.0123abcd", work / ".best.npz.0123abcd", work / "model.keras"),
        *(interrupted / ".card.json.0123abcd", interrupted / ".curves.png.0123abcd"),
    ]
    for each in leftovers:
        each.write_bytes(b"half of it")
    (interrupted / ".gitignore").write_text("*.keras")  # not ours
    lines: list[str] = []
    train(configuration, interrupted, resume=True, report=lines.append)
    assert lines[0] == (
        "Removed files of a killed process: .best.npz.0123abcd, .card.json.0123abcd, "
        ".checkpoint.npz.0123abcd, .curves.png.0123abcd, model.keras."
    )
    names = {each.name for each in interrupted.iterdir()}
    assert names == {
        ".gitignore",
        "card.json",
        "curves.png",
        "held-out.json",
        "logs",
        "model.keras",
    }
    # A kill between the removal of training.json and that of the unfinished files.
    work.mkdir()
    for name in ("lock", "best.npz"):
        (work / name).touch()
    with pytest.raises(UserError, match="already exists"):
        train(configuration, interrupted, report=lines.append)
    assert lines[-1] == "Removed files of a killed process: best.npz."
    assert {each.name for each in interrupted.iterdir()} == names


def test_a_kill_before_the_plan_leaves_a_free_folder(
    configuration: TrainingConfiguration, tmp_path: Path
) -> None:
    (tmp_path / "model" / "unfinished").mkdir(parents=True)
    (tmp_path / "model" / "unfinished" / "lock").touch()
    train(replace(configuration, head_epochs=1, epochs=0), tmp_path / "model")
    # Without the lock the folder may be anybody's.
    (tmp_path / "mine" / "unfinished").mkdir(parents=True)
    with pytest.raises(UserError, match="already exists"):
        train(configuration, tmp_path / "mine")
    with pytest.raises(UserError, match="not a model folder"):
        train(configuration, tmp_path / "mine", force=True)
