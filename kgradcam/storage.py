"""Files on object stores, such as `s3://bucket/pets/a.jpg`, beside local ones.

universal-pathlib gives them the interface of `pathlib`, over fsspec and the library of each store
(extra `cloud`). Those libraries find credentials, and repeat requests that fail. A store has no
rename, no lock and no fsync. An object appears whole, so it is written under its final name.

`pathlib` shortens `s3://bucket` to `s3:/bucket`; both forms count here.
"""

import errno
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import Buffer, override

from kgradcam.errors import UserError

_URL = re.compile(r"(abfs|az|gs|memory|s3):/+(.+)", re.DOTALL)
_PASSWORD = re.compile(r"[^/@]*:[^/@]*@")
_BLOCK = 2**16  # of a request, which holds the header of most images


class StorageError(Exception):
    """A store refused or failed a request, after the repetitions of its library.

    This is neither a `UserError` nor an `OSError`: no image may count as damaged because of it.
    """


def is_remote(path: Path | str) -> bool:
    """Returns whether a path is the URL of an object or a folder on a store."""
    return _URL.match(_text(path)) is not None


def place(path: Path | str) -> Path:
    """Returns a path for reading: a local one, or that of universal-pathlib for a URL.

    Args:
        path: A path or URL.

    Raises:
        UserError: The URL holds a password, or the library of the store is not installed.
    """
    found = _URL.match(_text(path))
    if found is None or not isinstance(path, Path | str):
        return Path(path) if isinstance(path, str) else path
    scheme, rest = found.groups()
    if _PASSWORD.match(rest):
        raise UserError(
            f"The URL of {scheme}:// holds a password, which a run would store. Leave it to the "
            "environment or the configuration of the store's library."
        )
    try:
        from upath import UPath

        return UPath(f"{scheme}://{rest}")
    except ImportError as error:
        raise UserError(
            f"{scheme}:// needs the library of that store: pip install 'kgradcam[cloud]' ({error})"
        ) from None


@contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Turns exceptions of the library of a store into a `StorageError` that names the URL.

    Args:
        path: The file or URL in use; errors of a local path stay as they are.

    Raises:
        FileNotFoundError: There is no such object.
        StorageError: The store failed.
    """
    try:
        yield
    except (FileNotFoundError, UserError, StorageError):
        raise
    except Exception as error:  # each library has its own
        if not is_remote(path):
            raise
        reason = _PASSWORD.sub("", " ".join(str(error).split())) or type(error).__name__
        raise StorageError(f"{path}: the store failed: {reason}") from error


def open_object(path: Path | str, limit: int) -> io.BufferedReader:
    """Opens an object for reading by ranges.

    Args:
        path: Its URL.
        limit: The maximum number of bytes.

    Raises:
        FileNotFoundError: There is no such object.
        UserError: It has more bytes.
        StorageError: The store failed.
    """
    url: Any = place(path)
    with storage_errors(url):
        found = url.fs.info(url.path)
    if found["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "no such object", str(url))
    size = found["size"]
    if size > limit:
        raise UserError(f"{url} has {size:,} bytes, more than {limit:,}.")
    return io.BufferedReader(_Object(url, size), _BLOCK)


def write_object(path: Path | str, pieces: Iterable[bytes]) -> None:
    """Writes an object whole, or not at all.

    Args:
        path: Its URL.
        pieces: Its content; gathered in a temporary file first.

    Raises:
        StorageError: The store failed.
    """
    url: Any = place(path)
    with tempfile.TemporaryDirectory(prefix="kgradcam-") as folder:
        content = Path(folder, "object")
        with content.open("wb") as file:
            file.writelines(pieces)
        with storage_errors(url):
            url.fs.put_file(str(content), url.path)


def local_copy(path: Path) -> Path:
    """Returns a local file itself, or a copy of an object that lasts as long as the process.

    Raises:
        FileNotFoundError: There is no such object.
        StorageError: The store failed.
    """
    if not is_remote(path):
        return path
    url: Any = place(path)
    copy = Path(_copies().name, hashlib.sha256(str(url).encode()).hexdigest())
    if not copy.exists():
        with storage_errors(url):
            url.fs.get_file(url.path, f"{copy}.partial")
        os.replace(f"{copy}.partial", copy)
    return copy


def upload(folder: Path, url: Path, last: str) -> None:
    """Copies the files of a local folder to a store.

    Args:
        folder: The folder. A file `lock` is not copied.
        url: Its URL to be.
        last: The file that is copied when all others are there.

    Raises:
        StorageError: The store failed.
    """
    target: Any = place(url)
    names = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    ]
    first = [name for name in names if name != last]
    with storage_errors(url):
        target.fs.put(
            [str(folder / name) for name in first], [f"{target.path}/{name}" for name in first]
        )
        target.fs.put_file(str(folder / last), f"{target.path}/{last}")


def download(url: Path, folder: Path) -> None:
    """Copies the objects below a URL to a new local folder.

    Raises:
        StorageError: The store failed.
    """
    source: Any = place(url)
    with storage_errors(url):
        paths = source.fs.find(source.path)
        inside = [path.removeprefix(f"{source.path}/") for path in paths]
        source.fs.get(paths, [str(folder / name) for name in inside])


def remove(url: Path, first: str) -> None:
    """Removes the objects below a URL, if there are any.

    Args:
        url: The URL.
        first: The one to remove before all others.

    Raises:
        StorageError: The store failed.
    """
    folder: Any = place(url)
    with storage_errors(url):
        paths = folder.fs.find(folder.path)
        mark = f"{folder.path}/{first}"
        if mark in paths:
            folder.fs.rm_file(mark)
        if others := [path for path in paths if path != mark]:
            folder.fs.rm(others)


class Child(NamedTuple):
    """A file or folder in a folder.

    Attributes:
        name: Its name.
        is_folder: Whether it is a folder, or a link to one.
        is_link: Whether it is a link.
    """

    name: str
    is_folder: bool
    is_link: bool = False


def children(folder: Path) -> Iterator[Child]:
    """Yields the files and folders directly in a folder, unordered; on a store in one listing.

    Raises:
        OSError: The folder cannot be read.
        StorageError: The store failed.
    """
    if not is_remote(folder):
        with os.scandir(folder) as found:
            yield from (Child(each.name, each.is_dir(), each.is_symlink()) for each in found)
        return
    url: Any = place(folder)
    with storage_errors(url):
        listed = url.fs.ls(url.path, detail=True)
    for each in listed:
        name = each["name"].rstrip("/").rpartition("/")[2]
        if each["name"].strip("/") != url.path.strip("/"):  # the mark of an empty folder
            yield Child(name, each["type"] == "directory")


def forget_listings(folder: Path) -> None:
    """Clears cached listings, since other machines write to the folder; a no-op for a local one."""
    if is_remote(folder):
        place(folder).fs.invalidate_cache()  # type: ignore[attr-defined]


class _Object(io.RawIOBase):
    """The bytes of an object; each read is a request."""

    def __init__(self, url: Any, size: int) -> None:
        self._url, self._size, self._position = url, size, 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    @override
    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._size)
        if self._position >= end:
            return 0
        with storage_errors(self._url):
            content = self._url.fs.cat_file(self._url.path, start=self._position, end=end)
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    @override
    def readall(self) -> bytes:
        content = bytearray(max(self._size - self._position, 0))
        return bytes(content[: self.readinto(content)])


def _text(path: Path | str) -> str:
    return path.as_posix() if isinstance(path, Path) else str(path)


@cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kgradcam-")
