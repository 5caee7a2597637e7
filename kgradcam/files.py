"""Files that are either whole or not there."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, data: bytes | str | Iterable[str]) -> None:
    """Writes a file so that whoever opens it finds the old content or all of the new one.

    Args:
        path: The file; its folder must exist.
        data: Its content; text becomes UTF-8, and may come in pieces.
    """
    pieces = [data] if isinstance(data, bytes | str) else data
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece.encode("utf-8") if isinstance(piece, str) else piece)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp is private to the user; a result is as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as error:
        Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file was too much
        raise


def move(source: Path, target: Path) -> None:
    """Moves a file or folder to a free place on the same disk, in one step that outlasts a crash.

    Args:
        source: What to move.
        target: Where nothing is.
    """
    source.rename(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlast a power failure; where folders cannot be synced, no."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
