"""Checkpoints: all variables of a training exactly, and the history of its epochs.

`keras.callbacks.BackupAndRestore` does not keep the best weights and their epoch. Without them a
resumed training would stop at another epoch.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.errors import UserError
from kgradcam.files import open_regular, write_atomically

_OF_EPOCH = {"epoch": int, "stage": str, "loss": float, "map": float, "learning_rate": float}


def save_checkpoint(
    path: Path, variables: Sequence[Any], history: Sequence[dict[str, Any]], seconds: float
) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: A `.npz` file.
        variables: Keras variables.
        history: Number, stage, loss, validation mAP and learning rate of each epoch.
        seconds: Duration of the training until now.
    """
    arrays: dict[str, Any] = {
        str(place): np.asarray(variable) for place, variable in enumerate(variables)
    }
    state = json.dumps({"history": list(history), "seconds": seconds})
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(state), **arrays)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(
    path: Path, variables: Sequence[Any] = ()
) -> tuple[list[dict[str, Any]], float]:
    """Assigns a checkpoint to variables.

    Args:
        path: The `.npz` file.
        variables: The Keras variables, in the order of `save_checkpoint`. Default: none, which
            reads the history only.

    Returns:
        The history and the duration, as given to `save_checkpoint`.

    Raises:
        UserError: The file is damaged, or belongs to other variables.
    """
    try:
        # Opened here, because numpy leaves a damaged file open.
        with open_regular(path, 2**36) as opened, np.load(opened, allow_pickle=False) as file:
            for place, variable in enumerate(variables):
                _assign(variable, file[str(place)])
            state = json.loads(str(file["state"]))
            history = [
                {name: kind(row[name]) for name, kind in _OF_EPOCH.items()}
                for row in state["history"]
            ]
            return history, float(state["seconds"])
    # zipfile raises RuntimeError for encrypted members and unknown compressions.
    except (
        *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError),
        *(MemoryError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise UserError(
            f"{path} is damaged or belongs to another training ({error}). Start again with --force."
        ) from error


def _assign(variable: Any, values: Any) -> None:
    known = np.asarray(variable)
    if (values.shape, values.dtype) != (known.shape, known.dtype):
        raise ValueError(
            f"a variable must be {known.dtype} of {known.shape}. "
            f"Received: {values.dtype} of {values.shape}"
        )
    variable.assign(values)
