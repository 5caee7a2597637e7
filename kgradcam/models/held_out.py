"""The images that a training held out: `held-out.json` in the model folder.

It is an object with these fields:

===========  ======================================================================================
`split`      the split of the dataset that they belong to
`images`     their file names, in the order of the dataset
===========  ======================================================================================
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgradcam.data.split_names import HELD_OUT
from kgradcam.errors import UserError
from kgradcam.files import read_json, write_atomically

HELD_OUT_FILE = "held-out.json"


@dataclass(frozen=True)
class HeldOut:
    """The images that a training held out.

    Attributes:
        split: The split of the dataset that they belong to.
        images: Their file names.
    """

    split: str
    images: frozenset[str]


def write_held_out(folder: Path, split: str, images: Iterable[str]) -> None:
    """Writes the list of a model folder.

    Args:
        folder: The model folder.
        split: The split of the dataset that the images belong to.
        images: Their file names.
    """
    content = {"split": split, "images": list(images)}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / HELD_OUT_FILE, text)


def read_held_out(model: str) -> HeldOut:
    """Reads the list of a model folder.

    Args:
        model: The model folder.

    Raises:
        UserError: The model has no such list, or the list is damaged.
    """
    path = Path(model) / HELD_OUT_FILE
    if not path.is_file():
        raise UserError(
            f"--split {HELD_OUT} is the images that `kgradcam train` held out. It needs the "
            f"folder of that model, with {HELD_OUT_FILE}. Received: model={model!r}."
        )
    content: Any = read_json(path)
    if not isinstance(content, dict):
        content = {}
    split, images = content.get("split"), content.get("images")
    if (
        not isinstance(split, str)
        or not isinstance(images, list)
        or not all(isinstance(name, str) for name in images)
    ):
        raise UserError(f"{path} must hold a split, and a list of images.")
    return HeldOut(split, frozenset(images))
