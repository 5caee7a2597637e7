"""Planned runs on an object store: planned and merged in a local folder, which is then copied.

A store has no lock and no rename. Workers need neither, since a part has its final name from the
start. A plan counts once its `plan.json` is there, a run once its `run.json` is; they come last.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kgradcam.errors import UserError
from kgradcam.runs.partial_run import partial_folder
from kgradcam.storage import download, forget_listings, is_remote, place, remove, upload

_PLAN, _RUN = "plan.json", "run.json"


@contextmanager
def planned_locally(folder: Path, force: bool) -> Iterator[Path]:
    """Yields the folder to plan a run in: itself, or a local one for a URL; then copies the plan.

    Args:
        folder: The run folder to be.
        force: Whether the plan may replace another one, and later its run.

    Raises:
        UserError: There is another plan or run.
        StorageError: The store failed.
    """
    if not is_remote(folder):
        yield folder
        return
    url = place(folder)
    if not url.name:
        raise UserError(f"{url} is a bucket. Give a folder in it, such as {url / 'run'}.")
    forget_listings(url)
    partial = partial_folder(url)
    if not force:
        if (url / _RUN).exists():
            raise UserError(f"{url} is already there. Choose another --out, or give --force.")
        if (partial / _PLAN).exists():
            raise UserError(
                f"A run to {url} is planned already. Continue it with `kgradcam detect --resume "
                f"{url} --shard K/N`, or begin anew with --force."
            )
    with tempfile.TemporaryDirectory(prefix="kgradcam-") as temporary:
        local = Path(temporary, url.name)
        yield local
        remove(partial, _PLAN)
        upload(partial_folder(local), partial, _PLAN)


@contextmanager
def merged_locally(folder: Path) -> Iterator[Path]:
    """Yields a local copy of a planned run to merge; then copies the merged run back.

    Args:
        folder: The URL of the run folder to be. A part that the merge removes is removed there too.

    Raises:
        StorageError: The store failed.
    """
    url = place(folder)
    partial = partial_folder(url)
    with tempfile.TemporaryDirectory(prefix="kgradcam-") as temporary:
        local = Path(temporary, url.name)
        copy = partial_folder(local)
        download(partial, copy)
        for name in ("parts", "run/heatmaps"):  # a store has no empty folders
            (copy / name).mkdir(parents=True, exist_ok=True)
        parts = [path.name for path in (copy / "parts").glob("*.json")]
        try:
            yield local
        except UserError as error:
            for name in parts:
                if not (copy / "parts" / name).exists():
                    (partial / "parts" / name).unlink()
            raise UserError(str(error).replace(str(local), str(url))) from error
        remove(url, _RUN)
        upload(local, url, _RUN)
    remove(partial, _PLAN)
