"""The names of splits, as tools write them."""

from collections.abc import Sequence

from kgradcam.errors import UserError, did_you_mean

WHOLE_FOLDER = "all"
"""The split of all images of a dataset."""
HELD_OUT = "held-out"
"""The split of the images that the training of the model held out; see `models.held_out`."""
_VALIDATION = ("val", "valid", "validation")
SPLIT_NAMES = ("train", "training", "test", "testing", *_VALIDATION)
"""The names of folders that are splits and no classes."""


def choose_split(splits: Sequence[str], wanted: str | None, place: object) -> str:
    """Returns the name of a split in the spelling of its dataset.

    Args:
        splits: The splits of a dataset.
        wanted: The requested split; `"validation"`, `"valid"` and `"val"` are one. Default:
            `"test"`, else `"all"`, else the only one.
        place: The dataset, for the message.

    Raises:
        UserError: There is no such split, or there are several to choose from.
    """
    if wanted is None:
        same = ["test", WHOLE_FOLDER, *(splits if len(splits) == 1 else ())]
    else:
        same = [wanted, *(_VALIDATION if wanted in _VALIDATION else ())]
    for name in same:
        if name in splits:
            return name
    received = "none" if wanted is None else f"split={wanted!r}"
    hint = did_you_mean(wanted, splits) if wanted else ""
    raise UserError(
        f"{place} needs one of its splits: {', '.join(splits)}. Received: {received}.{hint}"
    )
