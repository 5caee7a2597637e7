"""Model folders: a `.keras` file, and a card with its usage and origin.

`card.json` is an object with these fields:

===============  ==================================================================================
`schema`         1
`classes`        the name of each output, in order
`preprocess`     the name of the network whose preprocessing to use, or `"none"`
`image_size`     the side of the training images in pixels
`layer`          the default layer for heatmaps
`training`       the configuration of the training
`data`           `training`, `validation`, optionally `test`: split, images, positives of each class
`metrics`        `validation`, optionally `test`: average precision of each class, and their mean
`skipped`        the images that could not be used, each with the reason
`history`        loss, validation mAP and learning rate of each epoch
`seconds`        the duration of the training
`versions`       the versions of kgradcam, Keras, TensorFlow and Python
===============  ==================================================================================
"""

import json
from pathlib import Path
from typing import Any

from kgradcam.errors import UserError
from kgradcam.files import read_json, write_atomically

SCHEMA = 1
MODEL_FILE = "model.keras"
CARD_FILE = "card.json"
PLAN_FILE = "training.json"
"""The configuration of an unfinished training; replaced by the card at the end."""


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Writes the card of a model folder, which completes the folder.

    Args:
        folder: The model folder.
        card: The fields above, without `schema`.
    """
    text = json.dumps({"schema": SCHEMA, **card}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CARD_FILE, text)


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the card of a model folder.

    Args:
        folder: The model folder.

    Returns:
        The fields above. `classes`, `preprocess` and `image_size`, which may be missing, are
        checked, the others are not.

    Raises:
        UserError: It is not a model folder, its training is not finished, or the card is damaged.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        if (folder / PLAN_FILE).is_file():
            raise UserError(
                f"The training of {folder} is not finished: kgradcam train --resume --out {folder}."
            )
        if (folder / "saved_model.pb").is_file():
            raise UserError(
                f"{folder} is a SavedModel, whose layers cannot be reached. Save the model again "
                "from Python: model.save('model.keras'), or in Keras 2 model.save('model.h5')."
            )
        raise UserError(f"{folder} is not a model folder: it has no {CARD_FILE}.")
    card: dict[str, Any] = read_json(path)
    if not isinstance(card, dict):
        raise UserError(f"{path} is not a readable model card: it must be a JSON object.")
    if missing := [name for name in ("classes", "preprocess") if name not in card]:
        raise UserError(f"{path} is not a readable model card: it lacks {missing[0]!r}.")
    classes, preprocess, size = card["classes"], card["preprocess"], card.get("image_size")
    if card.get("schema") != SCHEMA:
        raise UserError(f"{path} has schema {card.get('schema')!r}. Expected: {SCHEMA}.")
    if not isinstance(preprocess, str) or not _are_names(classes):
        raise UserError(f"{path}: classes must be a list of strings, and preprocess a string.")
    if size is not None and not (type(size) is int and 0 < size < 2**16):
        raise UserError(f"{path}: image_size must be a number of pixels. Received: {size!r}.")
    return card


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_name(value: Any) -> bool:
    # JSON can hold half of a surrogate pair, which no output can encode.
    return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)
