"""Datasets by name: a folder in VOC layout, the demo, or VOC of tensorflow-datasets."""

import os
from pathlib import Path

from kgradcam.data.dataset import Dataset
from kgradcam.data.names import DEMO, is_name
from kgradcam.data.voc_folder import WHOLE_FOLDER, VocFolder, read_folder
from kgradcam.errors import UserError, did_you_mean
from kgradcam.files import home_folder


def open_dataset(
    name: str,
    split: str | None = None,
    data_dir: Path | None = None,
    quiet: bool = True,
    clip: bool = False,
) -> Dataset:
    """Opens a split of a dataset and reads its annotations.

    Args:
        name: `"voc/2007"` or `"voc/2012"` of tensorflow-datasets, downloaded and prepared if it is
            missing; a folder in VOC layout; or `"demo"`, made if it is missing.
        split: The split. Default: `"test"`; `"all"` for a folder without a list of that name.
        data_dir: The data folder of tensorflow-datasets. Default: see `data_folder`.
        quiet: Shows no progress on stderr.
        clip: Clips boxes that leave their image, instead of skipping the image; for folders.

    Raises:
        UserError: The dataset or the split does not exist, has no usable image, or cannot be
            downloaded.

    Example:
        >>> dataset = open_dataset("demo", "test")  # needs `pip install 'kgradcam[demo]'`
        >>> len(dataset.examples), dataset.class_names
        (24, ('cat',))
        >>> batch = next(dataset.batches(dataset.examples, batch_size=8))
        >>> batch.images.shape
        (8, 448, 448, 3)
        >>> batch.examples[0].objects.boxes
        array([[144., 168., 405., 400.]])
    """
    if name == DEMO:
        return _open_folder(demo_folder(data_dir), name, split, quiet, clip)
    is_voc = is_name(name)
    if not is_voc and Path(name).is_dir():
        return _open_folder(Path(name), name, split, quiet, clip)
    from kgradcam.data import voc_builder  # imports tensorflow-datasets

    if is_voc:
        return voc_builder.open_voc(name, split or "test", data_folder(data_dir), quiet)
    options = [*voc_builder.voc_names(), DEMO]
    raise UserError(
        f"dataset={name!r} is neither a folder in VOC layout nor one of {', '.join(options)}."
        f"{did_you_mean(name, options)}"
    )


def _open_folder(root: Path, name: str, split: str | None, quiet: bool, clip: bool) -> Dataset:
    folder = VocFolder(root)
    if split is None:
        split = "test" if "test" in folder.split_files else WHOLE_FOLDER
    return Dataset(name, split, *read_folder(folder, split, quiet=quiet, clip=clip))


def data_folder(data_dir: Path | None = None) -> Path:
    """Returns `data_dir`, else `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    given = data_dir or os.environ.get("TFDS_DATA_DIR")
    return Path(given).expanduser() if given else home_folder() / "tensorflow_datasets"


def demo_folder(data_dir: Path | None = None) -> Path:
    """Returns the folder of the demo dataset; makes the dataset if it is missing."""
    from kgradcam.data.demo_scenes import write_demo_dataset

    folder = data_folder(data_dir) / "kgradcam_demo"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_demo_dataset(folder)
    return folder
