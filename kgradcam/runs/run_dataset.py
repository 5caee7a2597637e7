"""Opens the dataset of a run, and opens it again."""

import os
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from kgradcam.data.dataset import Dataset
from kgradcam.data.examples import Example
from kgradcam.data.sources import open_split, split_names
from kgradcam.data.split_names import HELD_OUT
from kgradcam.data.splits import Skipped, Split
from kgradcam.errors import DataWarning, UserError
from kgradcam.models.held_out import HELD_OUT_FILE, HeldOut, read_held_out
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.dataset_folder import find_folder
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import RunInfo


def open_configured(
    configuration: Configuration, data_dir: Path | None = None, quiet: bool = True
) -> Dataset:
    """Opens the split that a configuration names.

    Args:
        configuration: The options. `split="held-out"` is the images that the training of `model`
            held out, unless the dataset has a split of this name.
        data_dir: The folder of tensorflow-datasets.
        quiet: Shows no progress on stderr.

    Raises:
        UserError: The dataset or the split does not exist, or has no usable image.
    """
    split, held_out = _open(configuration, data_dir, quiet)
    dataset = Dataset.of(split)
    return _part(dataset, held_out, configuration.model) if held_out else dataset


def stream_configured(
    configuration: Configuration, data_dir: Path | None = None, quiet: bool = True
) -> Split:
    """Opens the split that a configuration names, to be read image by image."""
    split, held_out = _open(configuration, data_dir, quiet)
    if held_out is None:
        return split

    def results() -> Iterator[Example | Skipped]:
        missing = set(held_out.images)
        for each in split.results:
            name = each.file_name if isinstance(each, Example) else each[0]
            if name in held_out.images:
                missing.discard(name)
                yield each
        _warn_of_missing(split.name, held_out, missing, configuration.model)

    return replace(split, results=results())


def open_to_resume(
    folder: Path, info: RunInfo, data_dir: Path | None = None, quiet: bool = True
) -> Dataset:
    """Opens the images of an unfinished run; see `open_configured`."""
    dataset = open_again(folder, info, None, data_dir, quiet)
    held_out = _find_held_out(info.configuration, data_dir)
    return _part(dataset, held_out, info.configuration.model) if held_out else dataset


def _open(
    configuration: Configuration, data_dir: Path | None, quiet: bool
) -> tuple[Split, HeldOut | None]:
    """The split that a configuration names, or that of its held-out images, and these."""
    held_out = _find_held_out(configuration, data_dir)
    split = open_split(
        configuration.dataset,
        held_out.split if held_out else configuration.split,
        data_dir,
        quiet,
        configuration.clip,
        configuration.layout,
        Path(configuration.images) if configuration.images else None,
    )
    return split, held_out


def _find_held_out(configuration: Configuration, data_dir: Path | None) -> HeldOut | None:
    """The images that the training of the model held out, if the configuration names them."""
    if configuration.split != HELD_OUT:
        return None
    if HELD_OUT in (split_names(configuration.dataset, data_dir, configuration.layout) or ()):
        return None
    return read_held_out(configuration.model)


def _part(dataset: Dataset, held_out: HeldOut, model: str) -> Dataset:
    part = dataset.part(held_out.images)
    missing = held_out.images - {each.file_name for each in part.examples}
    missing -= {name for name, _ in part.skipped}
    if not part.examples:
        raise UserError(
            f"{dataset.name} has none of the {len(held_out.images)} images of "
            f"{Path(model) / HELD_OUT_FILE}, such as {min(missing, default='none')}. "
            "Give the --dataset of the training."
        )
    _warn_of_missing(dataset.name, held_out, missing, model)
    return part


def _warn_of_missing(name: str, held_out: HeldOut, missing: Collection[str], model: str) -> None:
    if missing:
        warnings.warn(
            f"{name} lacks {len(missing)} of the {len(held_out.images)} images of "
            f"{Path(model) / HELD_OUT_FILE}, such as {min(missing)}.",
            DataWarning,
            stacklevel=3,
        )


def open_run_dataset(
    run: Run,
    dataset: str | None = None,
    data_dir: Path | None = None,
    quiet: bool = True,
    wanted: Collection[str] | None = None,
) -> Dataset:
    """Opens the split of a run as the run did.

    Args:
        run: The run.
        dataset: The dataset, if it was moved. Default: that of the run.
        data_dir: The folder of tensorflow-datasets.
        quiet: Shows no progress on stderr.
        wanted: The file names of the images that are needed. The others are not kept in memory,
            apart from the first one, since a dataset needs an image. Default: all.

    Raises:
        UserError: The dataset is gone or unreadable.
    """
    return open_again(run.folder, run.info, dataset, data_dir, quiet, wanted)


def open_again(
    folder: Path,
    info: RunInfo,
    dataset: str | None,
    data_dir: Path | None,
    quiet: bool,
    wanted: Collection[str] | None = None,
) -> Dataset:
    """Opens the split of a finished or unfinished run; see `open_run_dataset`."""
    made_by = info.configuration
    place = dataset or find_folder(folder, info.dataset)
    images = None if made_by.images is None else Path(made_by.images)
    if images is not None and not images.is_dir() and info.dataset.images_folder:
        images = Path(os.path.normpath(folder.resolve() / info.dataset.images_folder))
    split = open_split(
        place, info.dataset.split, data_dir, quiet, made_by.clip, made_by.layout, images
    )
    if wanted is not None:
        kept = (
            each
            for each in split.results
            if not isinstance(each, Example) or each.index == 0 or each.file_name in wanted
        )
        split = replace(split, results=kept)
    return Dataset.of(split)
