"""Pictures without boxes: a folder a class, a plain folder, and a list of files."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kgradcam.data.examples import NO_OBJECTS, Objects
from kgradcam.data.images import SUFFIXES
from kgradcam.data.reading import Entry, Place, Reading, read_entries
from kgradcam.data.split_names import SPLIT_NAMES
from kgradcam.data.voc_folder import read_lines
from kgradcam.errors import UserError

_LISTS = (".txt", ".lst")


def has_images(root: Path) -> bool:
    """Returns whether a folder or one of its subfolders has an image."""
    return root.is_dir() and any(
        _is_image(name) for _, _, names in os.walk(root, followlinks=False) for name in names
    )


def read_plain_folder(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    """Reads a folder of pictures with its subfolders, sorted by path; nothing is annotated."""
    entries = [Entry(name, place.root / name, _nothing) for name in image_names(place.root)]
    return read_entries(entries, quiet, annotated=False)


def is_list(root: Path) -> bool:
    """Returns whether a file is a list of pictures, by its suffix."""
    return root.suffix.lower() in _LISTS and root.is_file()


def read_list(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    """Reads the pictures of a list, in its order; relative to `place.images` or to the list."""
    folder = place.images or place.root.parent
    names = dict.fromkeys(read_lines(place.root))
    entries = [Entry(name, folder / name, _nothing) for name in names]
    return read_entries(entries, quiet, annotated=False)


def class_folder_splits(root: Path) -> dict[str, Path]:
    """Returns the folders of splits, each with a folder a class; empty for another layout.

    A folder a class: two or more folders with images directly in each, and no image beside them.
    """
    folders, has_image = _children(root) if root.is_dir() else ([], False)
    if has_image or not folders:
        return {}
    if all(folder.name in SPLIT_NAMES for folder in folders):
        found = {folder.name: class_folder_splits(folder).get("all") for folder in folders}
        return {name: folder for name, folder in found.items() if folder}
    is_class = len(folders) > 1 and all(_children(folder)[1] for folder in folders)
    return {"all": root} if is_class else {}


def read_class_folders(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    """Reads folders of pictures; the name of the first folder is annotated, without a box."""
    splits = class_folder_splits(place.root)
    root = splits.get(split, place.root)
    names = [name for name in image_names(root) if "/" in name]
    if not names:
        raise UserError(f"{root} holds no folder with pictures.")
    class_names = sorted({name.partition("/")[0] for name in names})
    annotate = {name: _labelled(name) for name in class_names}
    prefix = "" if root == place.root else f"{root.relative_to(place.root).as_posix()}/"
    entries = [
        Entry(prefix + name, root / name, annotate[name.partition("/")[0]]) for name in names
    ]
    return read_entries(entries, quiet, class_names)


def _labelled(class_name: str) -> Callable[[tuple[int, int]], Objects]:
    objects = replace(NO_OBJECTS, labels=(class_name,))
    return lambda size: objects


def _nothing(size: tuple[int, int]) -> Objects:
    return NO_OBJECTS


def _children(root: Path) -> tuple[list[Path], bool]:
    """The visible folders of a folder, sorted, and whether an image is directly in it."""
    folders, has_image = [], False
    with os.scandir(root) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(Path(entry.path))
            has_image = has_image or _is_image(entry.name)
    return sorted(folders), has_image


def image_names(root: Path) -> list[str]:
    """Returns the images of a folder and its subfolders, as sorted paths with `/`.

    Hidden files and folders do not count.
    """
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        names += [prefix + name for name in files if _is_image(name)]
    return sorted(names)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
