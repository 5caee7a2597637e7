"""Files that appear whole or not at all."""

import ctypes
import errno
import hashlib
import io
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kgradcam import storage
from kgradcam.errors import UserError

MAX_BYTES = 2**30
"""The default limit of a file that is read; the largest files of COCO have half of it."""


_READER_SECONDS = 10
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def write_atomically(path: Path, data: bytes | str | Iterable[bytes | str]) -> None:
    """Writes a file so that a reader finds either the old content or all of the new content.

    The content goes to a hidden file beside `path`, is fsynced, and is renamed to `path`. A stream,
    such as `/dev/null` or a pipe with a reader, is written to and never replaced. An object of a
    store is written under its final name.

    Args:
        path: The file; its folder must exist.
        data: Its content: bytes, text, or pieces of them. Text is encoded as UTF-8; what UTF-8
            lacks is escaped.

    Raises:
        OSError: The file cannot be written. The old content is then still there.
    """
    pieces: Iterable[bytes | str] = [data] if isinstance(data, bytes | str) else data
    if storage.is_remote(path):
        storage.write_object(path, _encoded(pieces))
        return
    if is_stream(path):
        with _open_stream(path) as file:
            file.writelines(_encoded(pieces))
        return
    partial = partial_path(path)
    try:
        # "x" creates with mode 0o666 less the umask, so the result is as readable as any new
        # file. tempfile would make it private, and undoing that needs the process-wide umask.
        with partial.open("xb") as file:
            file.writelines(_encoded(pieces))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # write() and fsync() report a full disk without a name
        raise


def _encoded(pieces: Iterable[bytes | str]) -> Iterator[bytes]:
    # Half of a surrogate pair, from JSON or a file name in another encoding, becomes \udXXX. In
    # JSON that is the escape of the same string.
    return (
        piece.encode("utf-8", "backslashreplace") if isinstance(piece, str) else piece
        for piece in pieces
    )


def _open_stream(path: Path) -> io.BufferedWriter:
    """Opens a stream for writing; a pipe that nobody reads within seconds is an error."""
    if not stat.S_ISFIFO(path.stat().st_mode):
        return path.open("wb")
    for _ in range(_READER_SECONDS * 20):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.05)
            continue
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "wb")
    raise UserError(f"{path} is a pipe that nothing reads.")


def is_stream(path: Path) -> bool:
    """Returns whether a path is a character device or a named pipe."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def home_folder() -> Path:
    """Returns the user's home directory.

    Raises:
        UserError: The user has none, as in some containers.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise UserError(
            "The user has no home directory. Set the environment variable HOME, or give the paths "
            "of data (--data-dir) and files in full."
        ) from None


def partial_path(path: Path) -> Path:
    """Returns an unused hidden name beside `path`, for content that is not complete yet."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def move(source: Path, target: Path) -> None:
    """Renames a file or folder on the same disk; the rename survives a power failure.

    Args:
        source: The file or folder.
        target: The new path, where nothing exists yet.
    """
    source.rename(target)
    sync_folder(target.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges two files or folders of one disk in one step, where the system can.

    Args:
        one: A file or folder.
        other: Another one.

    Returns:
        Whether they were exchanged. If not, nothing has changed.
    """
    paths = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux":
        name, arguments = "renameat2", (_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    elif sys.platform == "darwin":
        name, arguments = "renamex_np", (*paths, _RENAME_EXCHANGE)
    else:
        return False
    rename = getattr(ctypes.CDLL(None), name, None)  # some C libraries lack it
    if rename is None or rename(*arguments) != 0:  # some file systems cannot
        return False
    for folder in {one.parent, other.parent}:
        sync_folder(folder)
    return True


def sync_folder(folder: Path) -> None:
    """Fsyncs a folder so that renames in it survive a power failure; a no-op on Windows."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_regular(path: Path, limit: int = MAX_BYTES) -> io.BufferedReader:
    """Opens a regular file for reading, without waiting for a pipe or reading from a device.

    Args:
        path: The file, trusted or not.
        limit: The maximum number of bytes.

    Returns:
        The open file.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is no regular file, has more bytes, or cannot be opened.
    """
    if storage.is_remote(path):
        return storage.open_object(path, limit)
    try:
        # Else a pipe without a writer would block.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a zero byte, or half of a surrogate pair
        raise UserError(f"{str(path)!r} is no possible path: {error}.") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} has {status.st_size:,} bytes, more than {limit:,}.")
    raise UserError(f"{path} is not a regular file.")


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Reads a regular file; see `open_regular`.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is no regular file, has more bytes, or cannot be read.
    """
    if storage.is_remote(path):
        with storage.open_object(path, limit) as content:
            return content.read()
    with open_regular(path, limit) as file:
        try:
            # No more than its size of the moment: a file may grow while it is read.
            return file.read(os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def bytes_digest(content: bytes) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def file_digest(path: Path, limit: int = 2**36) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of a regular file.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is no regular file, has more bytes, or cannot be opened.
        OSError: It cannot be read.
    """
    with open_regular(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Reads a regular file as `read_bytes` does; a missing one is a user's mistake too.

    Args:
        path: The file.
        max_bytes: The size up to which it is read.

    Returns:
        Its content.

    Raises:
        UserError: The file is missing, not regular, too large, or cannot be read.
    """
    try:
        return read_bytes(path, max_bytes)
    except FileNotFoundError:
        raise UserError(f"No file {path}.") from None


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """Reads and parses a JSON file.

    Args:
        path: The file.
        limit: The maximum number of bytes.

    Raises:
        UserError: The file is missing, cannot be read, or is not JSON.
    """
    content = read_bounded(path, limit)
    try:
        # From bytes: UTF-8 with or without byte order mark, UTF-16 and UTF-32.
        return json.loads(content)
    # Deeply nested JSON exhausts the parser's recursion.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON: {error}") from error
