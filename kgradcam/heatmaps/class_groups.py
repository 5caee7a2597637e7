"""Classes as users give them, by index or name or in groups, as the outputs that they combine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError, did_you_mean

ClassTarget = int | str | Sequence[int | str]
"""A class by index or name, or a group of them that counts as one class."""

SIDES = ("positive", "negative")
"""The classes of a model with one sigmoid unit; the positive one is also index 0."""

_OF_LISTS = {
    "classes_per_image": " of lists; one class for each image is class_per_image=",
}
_ONE_HOT = " For one-hot rows, give np.argmax(rows, axis=-1)."


def list_targets(
    batch: int,
    classes: Sequence[ClassTarget] | None,
    class_per_image: Sequence[ClassTarget] | None,
    classes_per_image: Sequence[Sequence[ClassTarget]] | None,
) -> list[list[ClassTarget]]:
    """Returns the targets of each image; none at all if no argument is given.

    Args:
        batch: The number of images.
        classes: Targets of every image.
        class_per_image: One target for each image.
        classes_per_image: Several targets for each image, equally many.

    Raises:
        UserError: More than one argument is given, or one has not an entry for each image.
    """
    arguments: dict[str, Sequence[Any] | None] = {
        "classes": classes,
        "class_per_image": class_per_image,
        "classes_per_image": classes_per_image,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    for name, value in given.items():
        is_nested = name == "classes_per_image" and not _is_one(value)
        if any(map(_is_one, value if is_nested else [value])):
            raise UserError(f"{name} must be a list{_OF_LISTS.get(name, '')}. Received: {value!r}.")
        if not len(value):
            raise UserError(
                f"{name} must hold at least one class. Received: none. Without it the class with "
                "the highest score is explained."
            )
    if len(given) > 1:
        raise UserError(
            "Give one of classes, class_per_image and classes_per_image. "
            f"Received: {' and '.join(given)}."
        )
    if classes is not None:
        return [list(classes)] * batch
    for name, rows in given.items():
        if len(rows) != batch:
            raise UserError(
                f"{name} must have an entry for each of the {batch} images. Received: {len(rows)}."
            )
    if class_per_image is not None:
        return [[target] for target in class_per_image]
    rows = [list(row) for row in given.get("classes_per_image", ())]
    if len({len(row) for row in rows}) > 1:
        raise UserError(
            "classes_per_image must have equally many classes for each image. "
            f"Received: {[len(row) for row in rows]}."
        )
    return rows


def _is_one(classes: Any) -> bool:
    """Whether something is a single class, or nothing of which there can be several."""
    return isinstance(classes, str) or not getattr(classes, "ndim", hasattr(classes, "__len__"))


def names_of_outputs(
    class_names: Sequence[str] | None, class_count: int, two_sided: bool
) -> tuple[str, ...]:
    """Returns the names of outputs; of one unit its two sides, the positive one first.

    Args:
        class_names: Names as users give them; of one unit two, that of label 0 first, or that of
            label 1 alone.
        class_count: The number of outputs of the model.
        two_sided: Whether the model has one unit, whose sides are classes.

    Raises:
        UserError: There are not as many names as outputs.
    """
    names = tuple(class_names or ())
    if two_sided and len(names) < 3:
        # The unit is the probability of label 1, the second name.
        return (*names, f"not {names[0]}") if len(names) == 1 else (*reversed(names),) or SIDES
    if names and class_count and len(names) != class_count:
        raise UserError(
            f"class_names must have a name for each of the {class_count} classes. "
            f"Received: {len(names)}."
        )
    return names


def make_groups(
    targets: Sequence[Sequence[ClassTarget]],
    class_count: int,
    class_names: Sequence[str] = (),
) -> npt.NDArray[np.int32]:
    """Returns the outputs of each target, as `Score` takes them.

    Args:
        targets: The targets of each image, or one row for all images; equally many in each.
        class_count: The number of outputs of the model.
        class_names: The names of its outputs; two for one unit, whose sides are classes.

    Returns:
        int32 `[images, targets, outputs of a group]`, filled up with -1.

    Raises:
        UserError: A target is no index, name or group of them, or is out of range.
    """
    groups = [[_indices(target, class_count, class_names) for target in row] for row in targets]
    length = max((len(group) for row in groups for group in row), default=1)
    filled = np.full((len(targets), len(targets[0]), length), -1, dtype=np.int32)
    for i, row in enumerate(groups):
        for j, group in enumerate(row):
            filled[i, j, : len(group)] = group
    return filled


def _indices(target: Any, class_count: int, names: Sequence[str]) -> list[int]:
    """The indices of a class or a group."""
    members = [target] if isinstance(target, str) or not np.ndim(target) else list(target)
    indices = np.asarray(
        [_named(each, names, class_count) if isinstance(each, str) else each for each in members]
    )
    if indices.ndim != 1 or not indices.size or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(
            f"A class is an index, a name or a group of them. Received: {target!r}."
            f"{_ONE_HOT if indices.size == class_count > 1 else ''}"
        )
    by_name = len(members) == 1 and isinstance(members[0], str)
    if not by_name and (indices.min() < 0 or indices.max() >= class_count):
        sides = f" Its other class is {names[1]!r}." if class_count < len(names) else ""
        raise UserError(
            f"Class indices of this model are 0 to {class_count - 1}.{sides} Received: {target!r}."
        )
    if len(set(indices.tolist())) < indices.size or _is_row_of_two(members, class_count):
        raise UserError(f"A group has each class once. Received: {target!r}.{_ONE_HOT}")
    return [int(index) for index in indices]


def _is_row_of_two(members: list[Any], class_count: int) -> bool:
    """Whether a group of both classes of two is a one-hot row in fact; its score would be none."""
    return class_count == 2 and len(members) == 2 and not any(isinstance(e, str) for e in members)


def _named(name: str, names: Sequence[str], class_count: int) -> int:
    if name in names:
        return list(names).index(name)
    if class_count < len(names) and name in SIDES:  # one unit, whose sides have names of their own
        return SIDES.index(name)
    known = f"one of {', '.join(names[:8])}" if names else "an index: the model has no class names"
    raise UserError(f"A class is {known}. Received: {name!r}.{did_you_mean(name, names)}")
