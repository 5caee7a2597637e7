"""Replaced runs: neither the old nor the new one is lost, wherever the process is killed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import made_up_info

from kgradcam.errors import UserError
from kgradcam.files import exchange
from kgradcam.runs import replacing
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.partial_run import read_start
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import Counts
from kgradcam.runs.run_writer import write_run
from kgradcam.runs.tables import GroundTruth, Image

IMAGE = Image(1, "a.jpg", 12, 8)


def write(folder: Path, seed: int, **options: Any) -> Run:
    """Writes a run of one image; `seed` distinguishes it from others."""
    info = made_up_info([0.5], seed=seed)
    ones, box = np.ones(1, int), np.array([[1.0, 1, 5, 5]])
    truth = GroundTruth((IMAGE,), ("dog",), ones, ones, box, np.zeros(1, bool))
    heatmap = np.arange(6, dtype=np.float32).reshape(2, 3)
    with write_run(folder, **options) as writer:
        writer.begin(info)
        if not writer.done:
            writer.add([IMAGE], [ClassHeatmap(1, 1, heatmap, 1.0, 0.5)], {})
        return writer.finish(replace(info, counts=Counts(1, 1, 1, 0)), truth)


def seed_of(folder: Path) -> int:
    run = Run(folder)
    assert len(list(run.heatmaps())) == 1
    return run.info.configuration.seed


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def states(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """The disk before and after each step of replacing run 1 by run 2."""
    place, found = tmp_path / "place", []

    def kept(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            result = step(*arguments)
            found.append(tmp_path / f"state{len(found)}")
            shutil.copytree(place, found[-1])
            return result

        return run

    write(place / "run", 1)
    with monkeypatch.context() as watched:
        one_step = exchange if request.param else lambda one, other: False
        watched.setattr(replacing, "exchange", kept(one_step))
        for name in ("write_atomically", "move"):
            watched.setattr(replacing, name, kept(getattr(replacing, name)))
        write(place / "run", 2, force=True)
    assert seed_of(place / "run") == 2
    assert [path.name for path in place.iterdir()] == ["run"]
    assert len(found) == (3 if request.param else 4)
    return found


def test_a_kill_while_a_run_is_replaced_loses_neither(states: list[Path]) -> None:
    for state in states:
        folder = state / "run"
        said: list[str] = []
        if (folder / "run.json").exists() and seed_of(folder) == 2:
            with pytest.raises(UserError, match="It is finished"):
                write(folder, 2, resume=True, report=said.append)
            assert seed_of(folder) == 2
        else:
            # The start that is advised first: refused, with the old run in its place again.
            with pytest.raises(UserError, match=r"already there|was interrupted"):
                write(folder, 3)
            assert seed_of(folder) == 1
            write(folder, 2, resume=True)
            assert seed_of(folder) == 2
        assert [path.name for path in state.iterdir()] == ["run"]


def test_a_fresh_start_after_a_kill_keeps_a_run_until_its_end(states: list[Path]) -> None:
    for state in states:
        folder, said = state / "run", []

        def begin(folder: Path = folder, said: list[str] = said) -> None:
            with write_run(folder, force=True, report=said.append):
                assert seed_of(folder) in (1, 2)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            begin()
        assert said == [f"Removed leftovers of an earlier run to {folder}."]
        assert seed_of(folder) in (1, 2)
        assert [path.name for path in state.iterdir()] == ["run"]


def test_paths_to_which_no_folder_can_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    mount = tmp_path / "mount"
    mount.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == mount)
    for path, reason in {
        tmp_path / "link": "is a link to nowhere",
        Path("."): "contains the working directory. Choose a folder in it, such as run",
        tmp_path: "contains the working directory",
        mount: "is a mount point",
    }.items():
        with pytest.raises(UserError, match=f"No run can be renamed to .*: it {reason}"):
            write_run(path, force=True).__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mount", "work"]


def test_files_that_a_kill_left_incomplete_are_removed(tmp_path: Path) -> None:
    folder, partial, said = tmp_path / "run", tmp_path / ".run.partial", []
    with write_run(folder) as writer:
        writer.begin(made_up_info([0.5], seed=1))
        writer.add([IMAGE], [], {})
    (partial / "pieces/.00000-00001.json.0a1b2c3d").touch()
    with write_run(folder, resume=True, report=said.append) as writer:
        writer.begin(made_up_info([0.5], seed=1))
        assert writer.done == {1}
    assert len(said) == 1
    assert ".00000-00001.json.0a1b2c3d, which a killed process left incomplete" in said[0]
    assert not list(partial.rglob(".*"))
    assert read_start(folder).info.configuration.seed == 1


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(lock: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.raises(UserError, match="file system of .*run has no locks. Choose an --out"):
        write(tmp_path / "run", 1)


def test_folders_are_exchanged_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    assert not exchange(one, other)
    other.mkdir()
    (one / "a").touch()
    assert exchange(one, other)
    assert [list(one.iterdir()), list(other.iterdir())] == [[], [other / "a"]]
