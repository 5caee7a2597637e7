"""The card of an export: its origin, and the meaning of its numbers."""

import json
import platform
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kgradcam._version import __version__
from kgradcam.files import write_atomically

_MEANING = """\
Scores are the explained values: logits, before any softmax or sigmoid. Probabilities are the
model's own. A heatmap has the resolution of the layer, and is at least 0: high where the features
raised the score of its class. It shows what the model used, not whether the model is right.
`extent` is the part of the picture that its cells tile, as fractions. Boxes are xyxy in pixels of
the picture as it was sent, from 0, half-open, best first; rows of zeros are no boxes. The score of
a box combines the probability of the class with the heat in the box. It is no probability.
"""


def describe_signatures(signatures: dict[str, Any]) -> dict[str, Any]:
    """Returns the dtype and shape of each input and output, by the name of the signature."""

    def described(specs: Any) -> dict[str, str]:
        return {
            name: f"{spec.dtype.name} [{', '.join(str(side or '?') for side in spec.shape)}]"
            for name, spec in sorted(specs)
        }

    return {
        name: {
            "inputs": described(
                (spec.name, spec) for spec in tf.nest.flatten(function.structured_input_signature)
            ),
            "outputs": described(function.structured_outputs.items()),
        }
        for name, function in signatures.items()
    }


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Writes `card.json` and `card.md`, with the versions of the libraries.

    Args:
        folder: The folder of the SavedModel.
        card: Its content, of values that JSON has.
    """
    card["versions"] = {
        "kgradcam": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
    }
    text = json.dumps(card, indent=2, ensure_ascii=False)
    write_atomically(folder / "card.json", text + "\n")
    write_atomically(folder / "card.md", _markdown(card))


def _markdown(card: dict[str, Any]) -> str:
    model, versions = card["model"], card["versions"]
    facts = {
        "architecture": model["architecture"],
        "weights": model["weights"],
        "method": card["method"],
        "layer": card["layer"],
        "precision": card["precision"],
        "explained classes": card["explained"],
        "pictures": card["pictures"],
        "boxes": card["boxes"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    lines = [f"# {model['name']}, with explanations", "", _MEANING]
    lines += [f"- {name}: {json.dumps(fact, ensure_ascii=False)}" for name, fact in facts.items()]
    for name, signature in card["signatures"].items():
        lines += ["", f"## {name}", "", "| | name | type |", "| --- | --- | --- |"]
        for kind in ("inputs", "outputs"):
            lines += [f"| {kind[:-1]} | {key} | {spec} |" for key, spec in signature[kind].items()]
    return "\n".join(lines) + "\n"
