"""A split of a dataset as a stream of images, and its summary, in memory that does not grow."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kgradcam.data.examples import Example
from kgradcam.errors import UserError

Skipped = tuple[str, str]
"""The file name of an image that cannot be used, and the reason."""


@dataclass(frozen=True)
class Split:
    """A split of a dataset, read image by image.

    Attributes:
        name: `"voc/2007"`, or the folder.
        split: The name of the split.
        results: Its images in their order, and those that cannot be used; read once.
        class_names: The classes of the dataset, if the layout lists them.
        annotated: Whether the layout has annotations at all.
        description: The layout in words.
        records: For images without a file of their own, a `tf.data.Dataset` of the encoded images
            of the split; an example's `index` is its position there.
    """

    name: str
    split: str
    results: Iterator[Example | Skipped]
    class_names: Sequence[str] | None = None
    annotated: bool = True
    description: str = "tensorflow-datasets"
    records: Any = None


@dataclass(frozen=True)
class Summary:
    """A split without its images.

    Attributes:
        name, split, annotated, description: As in `Split`.
        class_names: The classes of the dataset. Default: the annotated ones, sorted.
        images: The number of images.
        present: The classes that are annotated on an image.
        digest: 16 hexadecimal digits of a SHA-256 over all annotations, to detect changes.
        skipped: The images that cannot be used.
    """

    name: str
    split: str
    annotated: bool
    description: str
    class_names: tuple[str, ...]
    images: int
    present: frozenset[str]
    digest: str
    skipped: list[Skipped]


def summarize(split: Split, keep: Callable[[Example], object] = lambda example: None) -> Summary:
    """Reads a split once.

    Args:
        split: The split.
        keep: Called with each image.

    Raises:
        UserError: The split has no image that can be used.
    """
    digest, skipped, images = hashlib.sha256(), [], 0
    present: set[str] = set()
    # In one pass: a list of the images of a large data set may not fit into memory.
    for each in split.results:
        if not isinstance(each, Example):
            skipped.append(each)
            continue
        images += 1
        digest.update(annotation_bytes(each))
        present |= each.objects.classes
        keep(each)
    require_images(split.name, split.split, images, skipped)
    return Summary(
        name=split.name,
        split=split.split,
        annotated=split.annotated,
        description=split.description,
        class_names=tuple(sorted(present) if split.class_names is None else split.class_names),
        images=images,
        present=frozenset(present),
        digest=digest.hexdigest()[:16],
        skipped=skipped,
    )


def collect(results: Iterable[Example | Skipped]) -> tuple[list[Example], list[Skipped]]:
    """Returns the images of a split, and those that cannot be used."""
    examples, skipped = [], []
    for each in results:
        if isinstance(each, Example):
            examples.append(each)
        else:
            skipped.append(each)
    return examples, skipped


def require_images(name: str, split: str, images: int, skipped: Sequence[Skipped]) -> None:
    """Checks that a split has an image.

    Raises:
        UserError: It has none.
    """
    if not images:
        first = "".join(f" Skipped {each}: {reason}" for each, reason in skipped[:1])
        raise UserError(f"split={split!r} of {name} has no usable image.{first}")


def annotation_bytes(example: Example) -> bytes:
    """Returns all that a digest of annotations covers of an image."""
    objects = example.objects
    image = (example.file_name, example.width, example.height, objects.names)
    labels = repr(objects.labels).encode() if objects.labels else b""
    return b"".join(
        [repr(image).encode(), objects.boxes.tobytes(), objects.difficult.tobytes(), labels]
    )
