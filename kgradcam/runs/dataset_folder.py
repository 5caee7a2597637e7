"""Finds the dataset of a run again, from any working directory."""

import os
from pathlib import Path

from kgradcam.data.names import is_name
from kgradcam.errors import UserError
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import DatasetInfo
from kgradcam.storage import is_remote


def relative_folder(dataset: str, run: Path) -> str | None:
    """Returns the path from a run folder to its dataset, so that both can be moved together.

    Args:
        dataset: A name, or a folder or file.
        run: The run folder.

    Returns:
        The relative path with `/`; the full one if the run is on an object store, or `None` if the
        dataset is a name or a URL.
    """
    if not dataset or is_name(dataset) or not Path(dataset).exists():
        return None
    if is_remote(run):
        return Path(dataset).resolve().as_posix()
    try:
        return Path(os.path.relpath(Path(dataset).resolve(), run.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return Path(dataset).resolve().as_posix()


def locate_dataset(run: Run, given: str | None = None) -> str:
    """Returns the name or the folder of the dataset of a run.

    Args:
        run: The run.
        given: The dataset to use instead, as after it was moved.

    Raises:
        UserError: It was a folder, and is gone.
    """
    return given or find_folder(run.folder, run.info.dataset)


def find_folder(run_folder: Path, dataset: DatasetInfo) -> str:
    """Returns the dataset's name, or its folder: relative to the run, or as it was typed.

    Args:
        run_folder: The folder of the run.
        dataset: Its dataset.

    Raises:
        UserError: It was a folder, and is gone.
    """
    if dataset.folder is None:
        return dataset.name
    # Normalized, since the folder of an unfinished run does not exist yet.
    base = Path() if is_remote(run_folder) else run_folder.resolve()
    places = [os.path.normpath(base / dataset.folder), dataset.name]
    for place in places:
        if Path(place).exists():
            return place
    missing = " nor ".join(dict.fromkeys(places))
    raise UserError(
        f"The dataset of {run_folder} is gone: there is no folder or file {missing}. Give "
        "its new place with --dataset."
    )
