"""Datasets by place or name: a layout on disk, the demo, or one of tensorflow-datasets."""

import os
from pathlib import Path

from kgradcam.data.dataset import Dataset
from kgradcam.data.layouts import find_layout
from kgradcam.data.names import DEMO, is_name
from kgradcam.data.reading import Place
from kgradcam.data.split_names import choose_split
from kgradcam.data.splits import Split
from kgradcam.errors import UserError, did_you_mean
from kgradcam.files import home_folder
from kgradcam.storage import place, storage_errors


def open_dataset(
    name: str,
    split: str | None = None,
    data_dir: Path | None = None,
    quiet: bool = True,
    clip: bool = False,
    layout: str | None = None,
    images: Path | None = None,
) -> Dataset:
    """Opens a split of a dataset and reads its annotations.

    Args:
        name: A folder or file in one of the layouts `LAYOUTS`; a dataset of tensorflow-datasets
            with boxes or labels, such as `"voc/2007"`, downloaded and prepared if it is missing; or
            `"demo"`, made if it is missing.
        split: The split. Default: `"test"`; else `"all"`; else the only one.
        data_dir: The data folder of tensorflow-datasets. Default: see `data_folder`.
        quiet: Shows no progress on stderr.
        clip: Clips boxes that leave their image, instead of skipping the image; for files.
        layout: One of `LAYOUTS`. Default: recognized.
        images: The folder of the images of COCO JSON or of a list. Default: found beside it.

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
    return Dataset.of(open_split(name, split, data_dir, quiet, clip, layout, images))


def open_split(
    name: str,
    split: str | None = None,
    data_dir: Path | None = None,
    quiet: bool = True,
    clip: bool = False,
    layout: str | None = None,
    images: Path | None = None,
) -> Split:
    """Opens a split whose annotations are then read image by image; see `open_dataset`.

    A folder of pictures, a folder a class and tensorflow-datasets are never in memory as a whole.
    A list keeps its names; VOC, COCO and YOLO keep names and annotations.
    """
    if name == DEMO or _is_place(name):
        where = Place(dataset_root(name, data_dir), images and place(images))
        with storage_errors(where.root):
            return _open_place(where, name, split, quiet, clip, layout)
    if layout is not None:
        raise UserError(f"No folder or file {name}, which --layout {layout} needs.")
    from kgradcam.data import tfds_records  # imports tensorflow-datasets

    if is_name(name) or tfds_records.is_known(name):
        try:
            return tfds_records.open_tfds(name, split or "test", data_folder(data_dir), quiet)
        except UserError as error:
            if Path(name).is_dir():
                raise UserError(f"{error} For the folder of that name: ./{name}.") from None
            raise
    options = [*tfds_records.voc_names(), DEMO]
    raise UserError(
        f"dataset={name!r} is neither a folder or file of images, nor a dataset of "
        f"tensorflow-datasets such as {', '.join(options)}.{did_you_mean(name, options)}"
    )


def split_names(
    name: str, data_dir: Path | None = None, layout: str | None = None
) -> tuple[str, ...] | None:
    """Returns the splits of a dataset on disk; `None` for one of tensorflow-datasets."""
    if name != DEMO and not _is_place(name):
        return None
    root = dataset_root(name, data_dir)
    with storage_errors(root):
        return tuple(find_layout(root, layout).splits(root))


def _open_place(
    place: Place, name: str, split: str | None, quiet: bool, clip: bool, layout: str | None
) -> Split:
    found = find_layout(place.root, layout)
    splits = found.splits(place.root)
    if found.description != "a folder in VOC layout":
        if not splits:
            raise UserError(f"{name} is not {found.description}. Try it without --layout.")
        split = choose_split(tuple(splits), split, name)
    elif split is None:
        split = choose_split(tuple(splits), split, name) if splits else "all"
    read = found.read(place, split, quiet, clip)
    return Split(name, split, read.results, read.class_names, read.annotated, found.description)


def _is_place(name: str) -> bool:
    with storage_errors(name):
        return not is_name(name) and place(name).exists()


def dataset_root(name: str, data_dir: Path | None) -> Path:
    """Returns the folder or file of a dataset on disk, or of the demo; the demo is made."""
    return demo_folder(data_dir) if name == DEMO else place(name)


def image_folder(name: str, data_dir: Path | None = None) -> Path | None:
    """Returns the folder of a dataset on disk; `None` for one of tensorflow-datasets."""
    if name != DEMO and not _is_place(name):
        return None
    root = dataset_root(name, data_dir)
    return root if root.is_dir() else root.parent


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
