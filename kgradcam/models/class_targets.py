"""Which outputs of a model stand for a class: names, indices, ranges and groups of them."""

import csv
import re
from collections.abc import Sequence

from kgradcam.errors import UserError, did_you_mean
from kgradcam.models import imagenet

ALL = "all"
"""Every class of a dataset that occurs in the split."""
_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def parse_target(text: str, class_names: Sequence[str] | None, class_count: int) -> tuple[int, ...]:
    """Reads the outputs of a model that together stand for one class.

    Args:
        text: Indices, ranges and names, separated by commas: `"104"`, `"151-268"`,
            `'tabby,"tiger cat"'`. With ImageNet's classes also a class of VOC: `"dog"`.
        class_names: The model's class names, or `None` if they are unknown.
        class_count: How many outputs the model has.

    Returns:
        Class indices, in increasing order.

    Raises:
        UserError: A name is unknown, or an index out of range.

    Example:
        >>> parse_target("3, 7-9", None, 10)
        (3, 7, 8, 9)
    """
    indices: set[int] = set()
    for item in next(csv.reader([text], skipinitialspace=True), []):
        if match := _RANGE.fullmatch(item.strip()):
            indices.update(range(int(match[1]), int(match[2]) + 1))
        elif item.strip().isdigit():
            indices.add(int(item))
        else:
            indices.update(_find_name(item.strip(), class_names))
    if not indices or max(indices) >= class_count:
        raise UserError(
            f"class {text!r} must name outputs of the model, 0 to {class_count - 1}. "
            f"Received: {sorted(indices) or 'none'}."
        )
    return tuple(sorted(indices))


def _find_name(name: str, class_names: Sequence[str] | None) -> tuple[int, ...]:
    if class_names is None:
        raise UserError(
            f"The model's class names are unknown, so {name!r} cannot be found: give an index, or "
            f"--class {name}=INDEX for a class of a dataset."
        )
    if class_names is imagenet.CLASS_NAMES:
        return imagenet.VOC_GROUPS.get(name.lower()) or (imagenet.find_class(name),)
    if name not in class_names:
        raise UserError(f"class {name!r} is unknown.{did_you_mean(name, class_names)}")
    return (list(class_names).index(name),)


def dataset_targets(
    options: Sequence[str],
    dataset_classes: Sequence[str],
    class_names: Sequence[str] | None,
    class_count: int,
) -> dict[str, tuple[int, ...]]:
    """Reads which classes of a dataset to detect, and the model's outputs for each.

    Args:
        options: For each class its name in the dataset, where the model has a class of that name
            or, for ImageNet, it is one of VOC's; or `NAME=TARGET` (see `parse_target`).
        dataset_classes: The dataset's class names.
        class_names: The model's class names, or `None` if they are unknown.
        class_count: How many outputs the model has.

    Returns:
        The class indices of each class of the dataset, in the order asked for.

    Raises:
        UserError: A class is not in the dataset, or the model has no outputs for it.

    Example:
        >>> dataset_targets(["kangaroo=104"], ["kangaroo"], None, 1000)
        {'kangaroo': (104,)}
    """
    targets: dict[str, tuple[int, ...]] = {}
    for option in options:
        name, _, target = option.partition("=")
        if name not in dataset_classes:
            raise UserError(
                f"class {name!r} does not occur in this split of the dataset."
                f"{did_you_mean(name, dataset_classes)} "
                f"Its classes: {', '.join(dataset_classes) or 'none'}."
            )
        # `--class all --class kangaroo=104`: the more explicit word counts.
        if target or name not in targets:
            targets[name] = parse_target(target or name, class_names, class_count)
    return targets
