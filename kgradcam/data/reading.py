"""Shared by the layouts: a place on disk, and the parallel reading of image headers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import NamedTuple

from kgradcam import progress
from kgradcam.data.examples import Example, Objects
from kgradcam.data.images import image_sizes
from kgradcam.data.splits import Skipped
from kgradcam.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where a dataset is.

    Attributes:
        root: Its folder or file.
        images: The folder of its images, if given.
    """

    root: Path
    images: Path | None = None


class Entry(NamedTuple):
    """An image to read.

    Attributes:
        name: Its name in the dataset.
        path: Its file.
        annotate: Returns its objects for `(width, height)`; raises `UserError` if they are not
            usable.
    """

    name: str
    path: Path
    annotate: Callable[[tuple[int, int]], Objects]


@dataclass(frozen=True)
class Reading:
    """A split as a layout reads it.

    Attributes:
        results: The images in their order, and those that cannot be used; read once.
        class_names: The classes of the dataset, if the layout lists them.
        annotated: Whether the layout has annotations at all.
    """

    results: Iterator[Example | Skipped]
    class_names: Sequence[str] | None = None
    annotated: bool = True


def read_entries(entries: Iterable[Entry], count: int, quiet: bool) -> Iterator[Example | Skipped]:
    """Yields the images that are usable, in order; headers are read in parallel.

    Args:
        entries: The images.
        count: Their number, for progress.
        quiet: Shows no progress on stderr.
    """
    index, (ahead, entries) = 0, tee(entries)
    with progress.bar("headers", count, "images", quiet, brief=True) as advance:
        sizes = image_sizes(entry.path for entry in ahead)
        for entry, size in zip(entries, sizes, strict=True):
            advance(1)
            try:
                if isinstance(size, UserError):
                    raise size
                if entry.name.encode(errors="replace").decode() != entry.name:
                    raise UserError("Its name is not UTF-8.")
                objects = entry.annotate(size)
            except UserError as error:
                name = entry.name.encode(errors="backslashreplace").decode()
                yield name, str(error)
            else:
                yield Example(index, entry.name, *size, objects, entry.path)
                index += 1
