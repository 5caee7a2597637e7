"""Parses class options into output indices of a model: names, indices, ranges and groups."""

import csv
import re
from collections.abc import Sequence

from kgradcam.errors import UserError, did_you_mean
from kgradcam.heatmaps.class_groups import SIDES
from kgradcam.models import imagenet

Target = tuple[int | str, ...]
"""The outputs that together represent a class, by index; or `"negative"` alone, the class of one
sigmoid unit below one half."""

ALL = "all"
"""As a class option: every class that occurs in the split of the dataset."""
_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def parse_target(text: str, class_names: Sequence[str] | None, class_count: int) -> Target:
    """Parses a target: the outputs of a model that together represent one class.

    A text that is exactly the name of an output means that output, even if it could be read
    otherwise: `"2"`, `"0-2"`, `"dog, big"`. The same holds for each part of a list.

    Args:
        text: Indices, inclusive ranges and names, separated by commas: `"104"`, `"151-268"`,
            `'tabby,"tiger cat"'`. For an ImageNet model also a VOC class: `"dog"` is 151 to 268.
        class_names: The names of the model's outputs, or `None` if they are unknown.
        class_count: The number of outputs.

    Returns:
        Class indices in increasing order, without duplicates.

    Raises:
        UserError: A name is unknown or has several outputs, an index is out of range, or there is
            none.

    Example:
        >>> parse_target("3, 7-9", None, 10)
        (3, 7, 8, 9)
        >>> parse_target("2", ("1", "2", "3"), 3)
        (1,)
    """
    if exact := _outputs_named(text, class_names):
        return _sides(exact, class_names, class_count)
    if class_count == 1 and text.strip() in SIDES:
        return (SIDES[1],) if text.strip() == SIDES[1] else (0,)
    indices: set[int] = set()
    for item in _split(text):
        if exact := _outputs_named(item, class_names):
            indices.update(exact)
        elif match := _RANGE.fullmatch(item):
            first, last = (_to_index(digits, class_count) for digits in match.group(1, 2))
            # Bounded, so that 0-9999999999 does not fill the memory.
            if not first <= last < class_count:
                raise _not_outputs(repr(item[:40]), class_count)
            indices.update(range(first, last + 1))
        elif item.isdecimal():
            indices.add(_to_index(item, class_count))
        else:
            indices.update(_find_name(item, class_names))
    if not indices or max(indices) >= class_count:
        raise _not_outputs(repr(text[:40]) if indices else "none", class_count)
    return tuple(sorted(indices))


def _sides(found: tuple[int, ...], class_names: Sequence[str] | None, class_count: int) -> Target:
    """Returns the target of named outputs, where one unit has a name for each of its classes."""
    if class_count == 1 and len(class_names or ()) == len(SIDES):
        return ((SIDES[1],), (0,))[found[0]]
    return found


def _outputs_named(name: str, class_names: Sequence[str] | None) -> tuple[int, ...]:
    """Returns the output of exactly that name, or nothing."""
    found = tuple(i for i, each in enumerate(class_names or ()) if each == name)
    if len(found) > 1:
        several = ", ".join(map(str, found))
        raise UserError(f"class {name!r} is ambiguous: it is the name of outputs {several}.")
    return found


def _to_index(digits: str, class_count: int) -> int:
    """Returns the number, or `class_count`, which is out of range, for ten digits or more."""
    return int(digits) if len(digits) < 10 else class_count


def _not_outputs(received: str, class_count: int) -> UserError:
    other = f" One unit also has the class {SIDES[1]!r}." if class_count == 1 else ""
    return UserError(
        f"class must name outputs of the model, 0 to {class_count - 1}.{other} "
        f"Received: {received}."
    )


def _split(text: str) -> list[str]:
    try:
        return [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error as error:
        raise UserError(
            f"class must be names and indices, with commas between: {error}."
        ) from error


def _find_name(name: str, class_names: Sequence[str] | None) -> tuple[int, ...]:
    if class_names is None:
        raise UserError(
            f"The class names of the model are unknown, so {name!r} has no index. Give --names "
            f"FILE, or the index, or --class {name}=INDEX for a class of a dataset."
        )
    if tuple(class_names) == imagenet.CLASS_NAMES:
        return imagenet.VOC_GROUPS.get(name.lower()) or (imagenet.find_class(name),)
    found = _outputs_named(name, class_names)
    if not found:
        raise UserError(f"class {name!r} is unknown.{did_you_mean(name, class_names)}")
    return found


def dataset_targets(
    options: Sequence[str],
    dataset_classes: Sequence[str],
    class_names: Sequence[str] | None,
    class_count: int,
) -> dict[str, Target]:
    """Parses class options: the classes of a dataset to detect, with the outputs for each.

    An option that is exactly the name of a class of the dataset means that class, even if it
    holds `=`. Otherwise the longest such name before a `=` counts.

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
    targets: dict[str, Target] = {}
    unmatched: dict[str, str] = {}
    for option in options:
        name, target = _split_option(option, dataset_classes)
        # In `--class all --class kangaroo=104` the explicit target overrides the name.
        if target:
            try:
                targets[name] = parse_target(target, class_names, class_count)
            except UserError as error:
                raise UserError(f"{name}={target:.80}: {error}") from None
        elif name not in targets:
            try:
                # A name from a dataset is a name: class "2" is not output 2.
                targets[name] = _sides(_find_name(name, class_names), class_names, class_count)
            except UserError as error:
                unmatched[name] = str(error)
    unmatched = {name: each for name, each in unmatched.items() if name not in targets}
    if unmatched and (len(unmatched) == 1 or class_names is None):
        raise UserError(next(iter(unmatched.values())))
    if unmatched:
        names = tuple(class_names or ())
        known = imagenet.all_names() if names == imagenet.CLASS_NAMES else names
        hints = [f"{name!r}.{did_you_mean(name, known)}" for name in unmatched]
        raise UserError(
            f"{len(unmatched)} classes of the dataset are no outputs of the model: "
            f"{' '.join(hints)} Give --class NAME=TARGET for each, or --classes FILE, or choose "
            "others by --class."
        )
    return targets


def _split_option(option: str, dataset_classes: Sequence[str]) -> tuple[str, str]:
    """Splits `NAME=TARGET`; the target of `NAME` alone is empty."""
    ends = [len(option), *(i for i, each in reversed([*enumerate(option)]) if each == "=")]
    for end in ends:
        if option[:end] in dataset_classes:
            return option[:end], option[end + 1 :]
    name = option.partition("=")[0]
    raise UserError(
        f"class {name!r} does not occur in this split of the dataset."
        f"{did_you_mean(name, dataset_classes)} "
        f"Its classes: {', '.join(dataset_classes) or 'none'}."
    )
