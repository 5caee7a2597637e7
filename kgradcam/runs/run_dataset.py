"""Opens the dataset of a run again."""

import os
from pathlib import Path

from kgradcam.data.dataset import Dataset
from kgradcam.data.sources import open_dataset
from kgradcam.runs.dataset_folder import find_folder
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import RunInfo


def open_run_dataset(
    run: Run, dataset: str | None = None, data_dir: Path | None = None, quiet: bool = True
) -> Dataset:
    """Opens the split of a run as the run did.

    Args:
        run: The run.
        dataset: The dataset, if it was moved. Default: that of the run.
        data_dir: The folder of tensorflow-datasets.
        quiet: Shows no progress on stderr.

    Raises:
        UserError: The dataset is gone or unreadable.
    """
    return open_again(run.folder, run.info, dataset, data_dir, quiet)


def open_again(
    folder: Path, info: RunInfo, dataset: str | None, data_dir: Path | None, quiet: bool
) -> Dataset:
    """Opens the split of a finished or unfinished run; see `open_run_dataset`."""
    made_by = info.configuration
    place = dataset or find_folder(folder, info.dataset)
    images = None if made_by.images is None else Path(made_by.images)
    if images is not None and not images.is_dir() and info.dataset.images_folder:
        images = Path(os.path.normpath(folder.resolve() / info.dataset.images_folder))
    return open_dataset(
        place, info.dataset.split, data_dir, quiet, made_by.clip, made_by.layout, images
    )
