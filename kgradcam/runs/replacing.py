"""Puts a finished run in its place, also where an older run is, so that a kill loses neither.

`exchange` in the hidden folder holds the digest of the new `run.json` from the moment before the
older run is replaced. `replaced` is the older run where a system cannot exchange folders in one
step; it is put back if the process was killed between the two renames.
"""

import os
from pathlib import Path

from kgradcam.errors import UserError
from kgradcam.files import exchange, file_digest, move, read_bytes, write_atomically
from kgradcam.runs.partial_run import partial_folder
from kgradcam.storage import is_remote

_MARK, _REPLACED = "exchange", "replaced"


def require_possible(folder: Path) -> None:
    """Checks that a run folder can be renamed to a path at all.

    Raises:
        UserError: It is a link, a mount point, or the working directory or above it.
    """
    if is_remote(folder):
        raise UserError(
            f"{folder} is on an object store, which has no locks. Plan the run there with --shards "
            "N --plan."
        )
    absolute = Path(os.path.abspath(folder))
    if absolute.is_symlink():
        reason = f"is a link to {absolute.readlink()}. Give the folder that it refers to"
    elif absolute.resolve() in (Path.cwd(), *Path.cwd().parents):
        reason = f"contains the working directory. Choose a folder in it, such as {folder / 'run'}"
    elif absolute.is_mount():
        reason = f"is a mount point. Choose a folder in it, such as {folder / 'run'}"
    else:
        return
    raise UserError(f"No run can be renamed to {folder}: it {reason}.")


def require_free(folder: Path, force: bool) -> None:
    """Checks that nothing is at the path of a run, or an older run that may be replaced.

    Raises:
        UserError: Something is there.
    """
    if not folder.exists():
        return
    if not force:
        raise UserError(
            f"{folder} is already there. Choose another --out, or replace it with --force."
        )
    is_run = folder.is_dir() and ((folder / "run.json").is_file() or not any(folder.iterdir()))
    if not is_run:
        raise UserError(
            f"{folder} is already there. It holds other files than a run, so --force does not "
            "replace it."
        )


def put_in_place(run: Path, folder: Path) -> None:
    """Renames a complete run to its folder; what was there moves to the hidden folder.

    Args:
        run: The run in the hidden folder.
        folder: The run folder.
    """
    if folder.exists():
        partial = partial_folder(folder)
        write_atomically(partial / _MARK, file_digest(run / "run.json"))
        if exchange(run, folder):
            move(run, partial / _REPLACED)  # else it would count as an interrupted run
            return
        move(folder, partial / _REPLACED)
    move(run, folder)


def recover(folder: Path) -> bool:
    """Completes or undoes a `put_in_place` that was killed.

    Args:
        folder: The run folder; its lock is held.

    Returns:
        Whether the new run was in its place, so that the hidden folder has only leftovers.
    """
    partial = partial_folder(folder)
    mark, replaced, current = partial / _MARK, partial / _REPLACED, folder / "run.json"
    if replaced.exists() and not folder.exists():
        move(replaced, folder)
    return (
        mark.is_file() and current.is_file() and file_digest(current).encode() == read_bytes(mark)
    )
