"""The layouts of a dataset on disk, recognized by their files, in this order.

To add one: its splits by name, empty if the place has another layout, and a reader of a split.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kgradcam.data.coco_layout import coco_splits, read_coco
from kgradcam.data.plain_layouts import (
    class_folder_splits,
    has_images,
    is_list,
    read_class_folders,
    read_list,
    read_plain_folder,
)
from kgradcam.data.reading import Place, Reading
from kgradcam.data.split_names import WHOLE_FOLDER
from kgradcam.data.voc_folder import VocFolder, each_in_folder
from kgradcam.data.yolo_layout import read_yolo, yolo_splits
from kgradcam.errors import UserError, require_known


class Layout(NamedTuple):
    """One layout.

    Attributes:
        description: Its name in messages.
        splits: Returns the splits of a place by name; empty if the place has another layout.
        read: Reads a split: the place, the split, whether to be quiet, whether to clip boxes.
    """

    description: str
    splits: Callable[[Path], Mapping[str, Any]]
    read: Callable[[Place, str, bool, bool], Reading]


def _voc_splits(root: Path) -> Mapping[str, Any]:
    try:
        return VocFolder(root).split_files | {WHOLE_FOLDER: root}
    except UserError:
        return {}


def _read_voc(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    return Reading(each_in_folder(VocFolder(place.root), split, quiet=quiet, clip=clip))


LAYOUTS = {
    "voc": Layout("a folder in VOC layout", _voc_splits, _read_voc),
    "coco": Layout("COCO JSON", coco_splits, read_coco),
    "yolo": Layout("YOLO", yolo_splits, read_yolo),
    "classes": Layout("a folder for each class", class_folder_splits, read_class_folders),
    "images": Layout(
        "pictures without annotation",
        lambda root: {WHOLE_FOLDER: root} if has_images(root) else {},
        read_plain_folder,
    ),
    "list": Layout(
        "a list of pictures without annotation",
        lambda root: {WHOLE_FOLDER: root} if is_list(root) else {},
        read_list,
    ),
}
"""The layouts by the values of `--layout`."""


def find_layout(root: Path, name: str | None = None) -> Layout:
    """Returns the layout of a place.

    Args:
        root: A folder or a file.
        name: One of `LAYOUTS`, to force it. Default: the first that fits.

    Raises:
        UserError: No layout fits.
    """
    if name is not None:
        require_known("layout", name, LAYOUTS)
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.splits(root):
            return layout
    if root.is_dir():
        VocFolder(root)  # raises, and names the missing folder
    raise UserError(
        f"{root} has no known layout: {', '.join(each.description for each in LAYOUTS.values())}."
    )
