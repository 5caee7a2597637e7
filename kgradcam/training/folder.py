"""The model folder during a training: its lock, its plan, and its unfinished files.

==================  ===============================================================================
`training.json`     the configuration, and digests of the data and the backbone
`unfinished/`       the lock, the checkpoints, cached features, and the model while it is written
`logs/`             the epochs for TensorBoard
==================  ===============================================================================

The model, its curves and its card are written last. Then `training.json` and `unfinished/` are
removed. A model that is replaced stays in the folder until that moment.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock

from kgradcam.errors import UserError, differences, errors_in_file
from kgradcam.files import read_bounded, write_atomically
from kgradcam.models.held_out import HELD_OUT_FILE
from kgradcam.models.model_card import CARD_FILE, MODEL_FILE, PLAN_FILE
from kgradcam.training.configuration import TrainingConfiguration

CURVES_FILE = "curves.png"
_WORK, _LOCK = "unfinished", "lock"
_MAX_PLAN_BYTES = 2**28


class TrainingFolder:
    """The paths of a locked model folder, and the inputs that its training was started with.

    Args:
        path: The folder.
        resume: Whether a training in it is resumed.

    Attributes:
        path: The folder.
        logs: The folder of TensorBoard logs.
        checkpoint: All variables after the last epoch.
        best: The weights of the best epoch.
        features: The folder of cached features.
        model: The model while it is written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        work = path / _WORK
        self.path, self.logs = path, path / "logs"
        self.checkpoint, self.best = work / "checkpoint.npz", work / "best.npz"
        self.features, self.model = work / "features", work / MODEL_FILE
        self._resume = resume

    def begin(self, configuration: TrainingConfiguration, inputs: dict[str, Any]) -> None:
        """Stores the inputs of a new training, or compares them with those of a resumed one.

        Args:
            configuration: The options.
            inputs: Digests of the data and the backbone, representable as JSON.

        Raises:
            UserError: A resumed training was started with other inputs.
        """
        if self._resume:
            self.require_same({"inputs": inputs})
            return
        _clear(self.path)
        shutil.rmtree(self.logs, ignore_errors=True)
        plan = {"configuration": asdict(configuration), "inputs": inputs}
        text = json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.path / PLAN_FILE, text)

    def require_same(self, now: dict[str, Any]) -> None:
        """Raises if a part of the stored plan differs.

        Args:
            now: The part, with the keys `configuration` or `inputs`.

        Raises:
            UserError: It differs. The message lists each difference.
        """
        then = _read_plan(self.path)
        if changes := differences(then, json.loads(json.dumps(now))):
            raise UserError(
                f"The training in {self.path} was started differently: {'; '.join(changes)}. "
                "Restore this, or start again with --force."
            )

    def finish(self, write: Callable[[], None]) -> None:
        """Replaces an older model, and removes everything that only an unfinished training needs.

        Args:
            write: Writes curves and card; called when the new model is in its place.
        """
        with self.model.open("r+b") as file:
            os.fsync(file.fileno())
        # An old card must not describe the new model, even if the process dies in between.
        (self.path / CARD_FILE).unlink(missing_ok=True)
        self.model.replace(self.path / MODEL_FILE)
        write()
        (self.path / PLAN_FILE).unlink()


@contextmanager
def open_folder(
    path: Path, force: bool, resume: bool, report: Callable[[str], None]
) -> Iterator[TrainingFolder]:
    """Locks a model folder for a training.

    A folder without a started training is removed again when the block ends.

    Args:
        path: The folder.
        force: Whether a model or an interrupted training in it may be replaced.
        resume: Whether an interrupted training in it is resumed.
        report: Called with a line of text if leftovers of a killed process were removed.

    Raises:
        UserError: The folder exists, another process trains in it, or there is nothing to resume.
    """
    if not (path / _WORK / _LOCK).is_file():  # else the folder is ours, and may need cleaning
        _check_folder(path, force, resume)
    is_new = not path.exists()
    (path / _WORK).mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / _WORK / _LOCK, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"Another process trains in {path}. Wait for it, or choose another folder."
        ) from None
    except NotImplementedError:
        raise UserError(
            f"The file system of {path} has no locks. Choose a folder on another one."
        ) from None
    try:
        if removed := _remove_leftovers(path):
            report(f"Removed files of a killed process: {', '.join(sorted(removed))}.")
        _check_folder(path, force, resume)  # again, now that no other process writes
        yield TrainingFolder(path, resume)
    finally:
        lock.release()
        if not (path / PLAN_FILE).is_file():
            shutil.rmtree(path / _WORK)
            if is_new and not any(path.iterdir()):
                path.rmdir()


def read_plan(folder: Path) -> TrainingConfiguration:
    """Returns the configuration of the interrupted training in a folder.

    Raises:
        UserError: There is none, or its file is damaged.
    """
    plan = _read_plan(folder)
    with errors_in_file(folder / PLAN_FILE, "plan of a training"):
        return TrainingConfiguration.from_dict(plan["configuration"])


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / PLAN_FILE
    if not path.is_file():
        done = " It is finished." if (folder / CARD_FILE).is_file() else ""
        raise UserError(f"There is no interrupted training in {folder} to resume.{done}")
    content = read_bounded(path, _MAX_PLAN_BYTES)
    with errors_in_file(path, "plan of a training"):
        plan = json.loads(content)
        return {name: dict(plan[name]) for name in ("configuration", "inputs")}


def _check_folder(path: Path, force: bool, resume: bool) -> None:
    """Raises if a training may not be written to a folder."""
    if resume:
        _read_plan(path)
        return
    if not path.exists():
        return
    is_started = (path / PLAN_FILE).is_file()
    is_model = (path / CARD_FILE).is_file()
    if path.is_dir() and not is_started and not is_model:
        names = {each.name for each in path.iterdir()}
        if not names or (names == {_WORK} and (path / _WORK / _LOCK).is_file()):
            return
    if not force:
        more = ", or continue with --resume" if is_started else ""
        raise UserError(
            f"{path} already exists. Choose another folder, or replace it with --force{more}."
        )
    if not (is_started or is_model):
        raise UserError(f"{path} is not a model folder, so --force does not replace it.")


def _remove_leftovers(path: Path) -> list[str]:
    """Removes files that a killed process left incomplete or forgot, and returns their names."""
    work = path / _WORK
    # `files.write_atomically` writes to hidden names first.
    incomplete = [*work.rglob(".*"), work / MODEL_FILE]
    for name in (PLAN_FILE, CARD_FILE, CURVES_FILE, HELD_OUT_FILE):
        incomplete += path.glob(f".{name}.*")
    removed = [each.name for each in incomplete if each.exists()]
    for each in incomplete:
        each.unlink(missing_ok=True)
    if not (path / PLAN_FILE).is_file():
        removed += [each.name for each in work.iterdir() if each.name != _LOCK]
        _clear(path)
    return removed


def _clear(path: Path) -> None:
    """Removes all unfinished files except the lock."""
    for each in (path / _WORK).iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        elif each.name != _LOCK:
            each.unlink()
