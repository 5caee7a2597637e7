"""Checkpoints: all variables of a training exactly, and the history of its epochs.

`keras.callbacks.BackupAndRestore` does not keep the best weights and their epoch. Without them a
resumed training would stop at another epoch.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.errors import UserError
from kgradcam.files import write_atomically


def save_checkpoint(path: Path, variables: Sequence[Any], state: dict[str, Any]) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: A `.npz` file.
        variables: Keras variables.
        state: Further values, representable as JSON.
    """
    arrays: dict[str, Any] = {
        str(place): np.asarray(variable) for place, variable in enumerate(variables)
    }
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(json.dumps(state)), **arrays)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, variables: Sequence[Any] = ()) -> dict[str, Any]:
    """Assigns a checkpoint to variables and returns its further values.

    Args:
        path: The `.npz` file.
        variables: The Keras variables, in the order of `save_checkpoint`. Default: none, which
            reads the further values only.

    Raises:
        UserError: The file is damaged, or belongs to other variables.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            for place, variable in enumerate(variables):
                variable.assign(file[str(place)])
            state: dict[str, Any] = json.loads(str(file["state"]))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged or belongs to another training ({error}). Start again with --force."
        ) from error
    return state
