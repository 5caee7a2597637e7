"""Finds the files of a folder by the names in an image list."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PureWindowsPath

from kgradcam.data.images import SUFFIXES
from kgradcam.errors import UserError
from kgradcam.storage import children, is_remote


class NamedFiles:
    """The files of a folder and its subfolders, by name.

    A name is a file's path in the folder, with or without suffix. In order of precedence:

    1. The name as written; then without the suffix of an image.
    2. The same in another case, or in another Unicode form of the same letters.

    A name may have more folders than the file, or fewer, as long as only one file fits. What
    precedes the folder's own name in a path does not count: `VOC2007/JPEGImages/a.jpg`. Only files
    of the folder are ever returned, whatever the name.

    Args:
        folder: The folder; need not exist.
        suffixes: The suffixes of its files, lower case, in order of preference.
    """

    def __init__(self, folder: Path, suffixes: Collection[str]) -> None:
        self.folder = folder
        self._preference = {suffix: i for i, suffix in enumerate(suffixes)}
        self.stems: set[str] = set()
        # For each ending of a file's path: how many of its folders are left out, and the file.
        self._files: defaultdict[str, list[tuple[int, Path]]] = defaultdict(list)
        for path in _walk(folder):
            if path.suffix.lower() not in self._preference:
                continue
            parts = path.with_suffix("").relative_to(folder).parts
            self.stems.add("/".join(parts))
            for left_out in range(len(parts)):
                ending = "/".join(parts[left_out:])
                for key in {ending, ending + path.suffix}:
                    for form in {key, _folded(key)}:
                        self._files[form].append((left_out, path))

    def __contains__(self, name: str) -> bool:
        try:
            return self.find(name) is not None
        except UserError:
            return False

    def find(self, name: str) -> Path | None:
        """Returns the file of that name, or `None`.

        Raises:
            UserError: The name leads out of the folder, or several files fit it.
        """
        parts = self._parts(name)
        *folders, last = parts
        stem, dot, suffix = last.rpartition(".")
        lasts = [last, stem] if stem and f"{dot}{suffix}".lower() in SUFFIXES else [last]
        for change in (str, _folded):
            for final in lasts:
                for start in range(len(parts)):
                    found = self._files.get(change("/".join([*folders, final][start:])), [])
                    # With folders of its own left out, a name needs the whole path of a file.
                    fitting = [each for each in found if start == 0 or each[0] == 0]
                    if fitting:
                        return self._only(name, fitting)
        return None

    def _only(self, name: str, fitting: list[tuple[int, Path]]) -> Path:
        fewest = min(left_out for left_out, _ in fitting)
        paths = sorted({path for left_out, path in fitting if left_out == fewest})
        if len({path.with_suffix("") for path in paths}) > 1:
            raise UserError(
                f"{name!r} is ambiguous: {' or '.join(str(path) for path in paths[:3])}."
            )
        return min(paths, key=lambda path: self._preference[path.suffix.lower()])

    def _parts(self, name: str) -> tuple[str, ...]:
        """Splits a name; raises if it leads out of the folder."""
        text = name
        local = not is_remote(self.folder)
        if local and Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name:
            root = os.path.join(os.path.abspath(self.folder), "")
            text = name.removeprefix(root)
        path = PureWindowsPath(text)  # splits at / and at \
        if path.anchor or ".." in path.parts or "\0" in text or not path.parts:
            raise UserError(f"{name!r} is not a file name in {self.folder}.")
        parts = path.parts
        if self.folder.name in parts[:-1]:
            last = max(i for i, part in enumerate(parts[:-1]) if part == self.folder.name)
            parts = parts[last + 1 :]
        return parts


def _walk(folder: Path) -> Iterator[Path]:
    """Yields the files, also those behind links to folders; each folder once."""
    if is_remote(folder):
        for each in sorted(children(folder)) if folder.is_dir() else ():
            path = folder / each.name
            if each.is_folder:
                yield from _walk(path)
            elif not each.name.startswith("._"):
                yield path
        return
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # macOS leaves a ._a.xml beside each a.xml on foreign disks.
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("._"))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
