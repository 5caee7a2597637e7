"""What layouts share: a place on disk, and the parallel reading of image headers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kgradcam import progress
from kgradcam.data.examples import Example, Objects
from kgradcam.data.images import image_sizes
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


@dataclass
class Reading:
    """A split as a layout reads it.

    Attributes:
        examples: The images, in order.
        skipped: `(file name, reason)` of each image that cannot be used.
        class_names: The classes of the dataset, if the layout lists them.
        annotated: Whether the layout has annotations at all.
    """

    examples: list[Example] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    class_names: Sequence[str] | None = None
    annotated: bool = True


def read_entries(
    entries: Sequence[Entry],
    quiet: bool,
    class_names: Sequence[str] | None = None,
    annotated: bool = True,
) -> Reading:
    """Reads the headers of images in parallel, and keeps those that are usable, in order.

    Args:
        entries: The images.
        quiet: Shows no progress on stderr.
        class_names: As in `Reading`.
        annotated: As in `Reading`.
    """
    found = Reading(class_names=class_names, annotated=annotated)
    with progress.bar("headers", len(entries), "images", quiet, brief=True) as advance:
        sizes = image_sizes([entry.path for entry in entries])
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
                found.skipped.append((name, str(error)))
            else:
                index = len(found.examples)
                found.examples.append(Example(index, entry.name, *size, objects, entry.path))
    return found
