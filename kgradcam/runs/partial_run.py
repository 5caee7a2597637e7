"""The hidden folder that holds a run until it is finished.

A run to `NAME` is written into `.NAME.partial` beside it:

==============  ===================================================================================
`start.json`    the options of the run; it is resumed with the same ones only
`lock`          held by the process that writes
`parts/`        for each finished part: its images and their boxes
`pieces/`       the results of the unfinished part
`exchange`      and `replaced`: see `replacing`
`run/`          the files of the run so far; it is renamed to `NAME` at the end
==============  ===================================================================================
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import read_json, write_atomically
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.run_info import RunInfo
from kgradcam.storage import is_remote, place


@dataclass(frozen=True)
class Start:
    """The content of `start.json`.

    Attributes:
        info: The content of `run.json` so far.
        force: Whether the run may replace another one.
        data_dir: The folder of tensorflow-datasets, if one was given.
    """

    info: RunInfo
    force: bool
    data_dir: Path | None


def partial_folder(folder: Path) -> Path:
    """Returns the path of the hidden folder of a run."""
    # "." has no name of its own.
    absolute = place(folder) if is_remote(folder) else Path(os.path.abspath(folder))
    return absolute.with_name(f".{absolute.name}.partial")


def is_interrupted(folder: Path) -> bool:
    """Returns whether a run to `folder` is unfinished, and has a plan or results."""
    partial = partial_folder(folder)
    results = (partial.glob(name) for name in ("plan.json", "parts/*.json", "pieces/*.json"))
    begun = is_remote(folder) or (partial / "run").is_dir()
    return begun and any(map(any, results))


def write_start(folder: Path, start: Start) -> None:
    """Writes `start.json`, which makes the run resumable."""
    content = {
        "info": start.info.to_json(),
        "force": start.force,
        "data_dir": None if start.data_dir is None else str(start.data_dir),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(partial_folder(folder) / "start.json", text)


def read_start(folder: Path) -> Start:
    """Reads the options of an interrupted run.

    Raises:
        UserError: There is no interrupted run to `folder`, or `start.json` is damaged.
    """
    partial = partial_folder(folder)
    path = partial / "start.json"
    begun = is_remote(folder) or (partial / "run").is_dir()  # a store has no empty folders
    if not (begun and path.is_file()):
        done = " It is finished." if (folder / "run.json").is_file() else ""
        raise UserError(f"There is no interrupted run to {folder} to resume.{done}")
    content = read_json(path)
    with errors_in_file(path, "start of a run"):
        data_dir = content["data_dir"]
        return Start(
            RunInfo.from_json(content["info"]),
            bool(content["force"]),
            None if data_dir is None else Path(data_dir),
        )


def interrupted_configuration(folder: Path) -> tuple[Configuration, Path | None, Path | None]:
    """Returns the options of an interrupted run, its folder of datasets, and its refiner.

    `trusted` is false whatever the file holds, since the file may come from anyone.

    Raises:
        UserError: There is no interrupted run to `folder`, or `start.json` is damaged.
    """
    start = read_start(folder)
    refiner = Path(start.info.refiner.file) if start.info.refiner else None
    return replace(start.info.configuration, trusted=False), start.data_dir, refiner
