"""A model folder: one `.keras` file, and a card that says how to use it and where it comes from.

`card.json` holds one object:

===============  ==================================================================================
`schema`         1
`classes`        the name of each output, in order
`preprocess`     whose preprocessing the network takes, or `"none"`; see `models.load_classifier`
`image_size`     the side of the squares that it was trained on
`layer`          the layer whose heatmaps are explained by default
`training`       the effective configuration that made it
`data`           `training`, `validation` and maybe `test`: split, images, positives of each class
`metrics`        `validation` and maybe `test`: average precision of each class, and their mean
`skipped`        each image that could not be used, and why
`history`        loss, validation mAP and learning rate of each epoch
`seconds`        how long training took
`versions`       of kgradcam, Keras, TensorFlow and Python
===============  ==================================================================================
"""

import json
from pathlib import Path
from typing import Any

from kgradcam.errors import UserError
from kgradcam.files import write_atomically

SCHEMA = 1
MODEL_FILE = "model.keras"
CARD_FILE = "card.json"
PLAN_FILE = "training.json"
"""What an unfinished training is to become; the card takes its place."""


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Writes the card of a model folder; with it the folder is complete."""
    text = json.dumps({"schema": SCHEMA, **card}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CARD_FILE, text)


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the card of a model folder.

    Raises:
        UserError: The folder is none, its training is not finished, or its card is not readable.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        if (folder / PLAN_FILE).is_file():
            raise UserError(
                f"The training of {folder} is not finished: kgradcam train --resume --out {folder}."
            )
        raise UserError(f"{folder} is no model folder: it lacks {CARD_FILE}.")
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        classes, preprocess = card["classes"], card["preprocess"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no readable card of a model: {error!r}.") from error
    if card.get("schema") != SCHEMA:
        raise UserError(f"{path} has schema {card.get('schema')!r}, and not {SCHEMA}.")
    if not isinstance(preprocess, str) or not _are_names(classes):
        raise UserError(f"{path}: classes must be a list of names, and preprocess a name.")
    return card


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
