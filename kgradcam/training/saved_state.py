"""Where a training stands: every variable to the last bit, and what is known besides.

Keras' own backup leaves out how long ago the validation was best and which weights those were;
without them a resumed training would stop elsewhere.
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
    """Writes a checkpoint, whole or not at all.

    Args:
        path: A `.npz` file.
        variables: Keras variables.
        state: What else to keep, as JSON can.
    """
    arrays: dict[str, Any] = {
        str(place): np.asarray(variable) for place, variable in enumerate(variables)
    }
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(json.dumps(state)), **arrays)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, variables: Sequence[Any]) -> dict[str, Any]:
    """Reads a checkpoint back into the variables it was made of, and returns the state.

    Raises:
        UserError: The file is damaged, or of other variables.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            for place, variable in enumerate(variables):
                variable.assign(file[str(place)])
            state: dict[str, Any] = json.loads(str(file["state"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no checkpoint of this training ({error}): begin anew with --force."
        ) from error
    return state


def read_state(path: Path) -> dict[str, Any]:
    """Returns the state of a checkpoint alone."""
    return load_checkpoint(path, ())
