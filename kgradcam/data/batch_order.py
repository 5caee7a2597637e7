"""The batches of a split, known before any image is decoded."""

from collections.abc import Iterable, Iterator

_PIXELS = 512 * 512  # mean pixels of an image in a batch, so that large photographs fit into memory


def batch_order(shapes: Iterable[tuple[int, int]], batch_size: int) -> Iterator[list[int]]:
    """Yields the positions of the images of each batch, as `Dataset.batches` makes them.

    Args:
        shapes: Height and width of each image, in the order of the images.
        batch_size: As in `Dataset.batches`.

    Example:
        >>> list(batch_order([(9, 9), (8, 9), (9, 9), (8, 9), (9, 9)], batch_size=2))
        [[0, 2], [1, 3], [4]]
    """
    waiting: dict[tuple[int, int], list[int]] = {}
    for position, shape in enumerate(shapes):
        batch = waiting.setdefault(shape, [])
        batch.append(position)
        if len(batch) == batch_limit(shape, batch_size):
            yield waiting.pop(shape)
    for shape in sorted(waiting):
        yield waiting[shape]


def batch_limit(shape: tuple[int, int], batch_size: int) -> int:
    """Returns the number of images of a shape in a batch."""
    return min(max(batch_size * _PIXELS // (shape[0] * shape[1]), 1), batch_size)
