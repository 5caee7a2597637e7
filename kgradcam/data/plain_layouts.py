"""Pictures without boxes: a folder a class, a plain folder, and a list of files."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kgradcam.data.examples import NO_OBJECTS, Objects
from kgradcam.data.images import SUFFIXES
from kgradcam.data.reading import Entry, Place, Reading, read_entries
from kgradcam.data.split_names import SPLIT_NAMES
from kgradcam.data.voc_folder import read_lines
from kgradcam.errors import UserError
from kgradcam.storage import children

_LISTS = (".txt", ".lst")


def has_images(root: Path) -> bool:
    """Returns whether a folder or one of its subfolders has an image."""
    return root.is_dir() and any(image_names(root))


def read_plain_folder(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    """Reads a folder of pictures with its subfolders, sorted by path; nothing is annotated."""
    entries = (Entry(name, place.root / name, _nothing) for name in image_names(place.root))
    return Reading(read_entries(entries, _count(place.root), quiet), annotated=False)


def is_list(root: Path) -> bool:
    """Returns whether a file is a list of pictures, by its suffix."""
    return root.suffix.lower() in _LISTS and root.is_file()


def read_list(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    """Reads the pictures of a list, in its order; relative to `place.images` or to the list."""
    folder = place.images or place.root.parent
    names = dict.fromkeys(read_lines(place.root))
    entries = (Entry(name, folder / name, _nothing) for name in names)
    return Reading(read_entries(entries, len(names), quiet), annotated=False)


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
    class_names = sorted(
        folder.name
        for folder in _children(root)[0]
        if not folder.is_symlink() and any(image_names(folder))
    )
    if not class_names:
        raise UserError(f"{root} holds no folder with pictures.")
    annotate = {name: _labelled(name) for name in class_names}
    prefix = "" if root == place.root else f"{root.relative_to(place.root).as_posix()}/"
    entries = (
        Entry(prefix + name, root / name, annotate[name.partition("/")[0]])
        for name in image_names(root)
        if "/" in name
    )
    count = sum(_count(root / name) for name in class_names)
    return Reading(read_entries(entries, count, quiet), class_names)


def _labelled(class_name: str) -> Callable[[tuple[int, int]], Objects]:
    objects = replace(NO_OBJECTS, labels=(class_name,))
    return lambda size: objects


def _nothing(size: tuple[int, int]) -> Objects:
    return NO_OBJECTS


def _children(root: Path) -> tuple[list[Path], bool]:
    """The visible folders of a folder, sorted, and whether an image is directly in it."""
    found = [each for each in children(root) if not each.name.startswith(".")]
    folders = sorted(root / each.name for each in found if each.is_folder)
    return folders, any(_is_image(each.name) for each in found)


def image_names(root: Path) -> Iterator[str]:
    """Yields the images of a folder and its subfolders, as sorted paths with `/`.

    Hidden files and folders do not count. The names of a folder are in memory only while it is
    read.
    """
    for name in _sorted_names(root):
        if name.endswith("/"):
            yield from (name + each for each in image_names(root / name))
        else:
            yield name


def _sorted_names(root: Path) -> list[str]:
    """The visible images and folders of a folder; none if it cannot be read.

    Folders end in `/`, and so sort as the paths of their files do.
    """
    names = []
    with contextlib.suppress(OSError):
        for each in children(root):
            if each.is_folder:
                if not (each.name.startswith(".") or each.is_link):
                    names.append(f"{each.name}/")
            elif _is_image(each.name):
                names.append(each.name)
    return sorted(names)


def _count(root: Path) -> int:
    return sum(1 for _ in image_names(root))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
