"""Parses class options into output indices of a model: names, indices, ranges and groups."""

import csv
import re
from collections.abc import Sequence

from kgradcam.errors import UserError, did_you_mean
from kgradcam.models import imagenet

ALL = "all"
"""As a class option: every class that occurs in the split of the dataset."""
_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def parse_target(text: str, class_names: Sequence[str] | None, class_count: int) -> tuple[int, ...]:
    """Parses a target: the outputs of a model that together represent one class.

    Args:
        text: Indices, inclusive ranges and names, separated by commas: `"104"`, `"151-268"`,
            `'tabby,"tiger cat"'`. For an ImageNet model also a VOC class: `"dog"` is 151 to 268.
        class_names: The names of the model's outputs, or `None` if they are unknown.
        class_count: The number of outputs.

    Returns:
        Class indices in increasing order, without duplicates.

    Raises:
        UserError: A name is unknown, an index is out of range, or there is none.

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
            f"The class names of the model are unknown, so {name!r} has no index. Give the index, "
            f"or --class {name}=INDEX for a class of a dataset."
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
    """Parses class options: the classes of a dataset to detect, with the outputs for each.

    Args:
        options: For each class `NAME=TARGET` (see `parse_target`), or `NAME` if the model has a
            class of that name, or if it is a VOC class and the model an ImageNet model.
        dataset_classes: The class names of the dataset.
        class_names: The names of the model's outputs, or `None` if they are unknown.
        class_count: The number of outputs.

    Returns:
        Class indices for each dataset class, in the order of `options`.

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
        # In `--class all --class kangaroo=104` the explicit target overrides the name.
        if target or name not in targets:
            targets[name] = parse_target(target or name, class_names, class_count)
    return targets
