"""Files that appear whole or not at all."""

import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kgradcam.errors import UserError


def write_atomically(path: Path, data: bytes | str | Iterable[str]) -> None:
    """Writes a file so that a reader finds either the old content or all of the new content.

    The content goes to a hidden file beside `path`, is fsynced, and is renamed to `path`. A stream,
    such as `/dev/null` or a pipe, is written to and never replaced.

    Args:
        path: The file; its folder must exist.
        data: Its content: bytes, text, or pieces of text. Text is encoded as UTF-8.

    Raises:
        OSError: The file cannot be written. The old content is then still there.
    """
    pieces: Iterable[bytes | str] = [data] if isinstance(data, bytes | str) else data
    if is_stream(path):
        with path.open("wb") as file:
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
    return (piece.encode("utf-8") if isinstance(piece, str) else piece for piece in pieces)


def is_stream(path: Path) -> bool:
    """Returns whether a path is a character device or a named pipe."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


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


def sync_folder(folder: Path) -> None:
    """Fsyncs a folder so that renames in it survive a power failure; a no-op on Windows."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(path: Path) -> Any:
    """Reads and parses a JSON file.

    Raises:
        UserError: The file is missing, cannot be read, or is not JSON.
    """
    try:
        # From bytes: UTF-8 with or without byte order mark, UTF-16 and UTF-32.
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"No file {path}.") from None
    # Deeply nested JSON exhausts the parser's recursion.
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON: {error}") from error
