"""Checks that a run folder holds the files that `run.json` lists, unchanged."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from kgradcam.errors import UserError
from kgradcam.files import file_digest
from kgradcam.storage import local_copy

_PATTERNS = ("ground_truth.json", "detections-*.json", "heatmaps/*.npz")
_ADVICE = "Restore the folder, or make the run anew with `kgradcam detect --force`."


def digests(folder: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Returns a digest of each file of a run, except `run.json`, by its name in the folder.

    Args:
        folder: The run folder.
        known: The digests of files that need not be read again.
    """
    return {name: known.get(name) or file_digest(folder / name) for name in _names(folder)}


def require_complete(folder: Path, listed: Mapping[str, str]) -> None:
    """Checks the names of the files of a run.

    Args:
        folder: The run folder.
        listed: The files that `run.json` lists.

    Raises:
        UserError: A listed file is missing, or another one is there.
    """
    present = set(_names(folder))
    if missing := sorted(listed.keys() - present):
        raise UserError(
            f"{folder} is not complete: it has no {missing[0]}, and {len(missing)} of "
            f"{len(listed)} listed files are missing. {_ADVICE}"
        )
    if unknown := sorted(present - listed.keys()):
        raise UserError(
            f"{folder} holds {unknown[0]}, which its run.json does not list. Remove the file. "
            f"{_ADVICE}"
        )


def require_unchanged(folder: Path, name: str, listed: Mapping[str, str]) -> Path:
    """Checks the content of a file of a run.

    Args:
        folder: The run folder.
        name: The name of the file in it.
        listed: The digests in `run.json`.

    Returns:
        The path of the file, or of a local copy.

    Raises:
        UserError: The file is not listed, is missing, or has another content.
    """
    path = folder / name
    try:
        content = local_copy(path)
        found = file_digest(content)
    except FileNotFoundError:
        raise UserError(f"{folder} is not complete: it has no {name}. {_ADVICE}") from None
    if found != listed.get(name):
        raise UserError(
            f"{path} has changed since the run was made: its digest is {found}, and run.json "
            f"lists {listed.get(name, 'none')}. {_ADVICE}"
        )
    return content


def _names(folder: Path) -> list[str]:
    paths = (path for pattern in _PATTERNS for path in folder.glob(pattern))
    return sorted(path.relative_to(folder).as_posix() for path in paths)
