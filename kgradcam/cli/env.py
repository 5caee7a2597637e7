"""`kgradcam env`: shows versions, devices and data folders, for bug reports."""

import os
import platform

import typer

from kgradcam import __version__
from kgradcam.cli.options import AsJson
from kgradcam.cli.output import print_json
from kgradcam.cli.startup import import_tensorflow


def env(as_json: AsJson = False) -> None:
    """Show versions, devices and data folders, for bug reports.

    Example:
        kgradcam env
    """
    import_tensorflow()
    described = _describe()
    if as_json:
        print_json(described)
        return
    for name, value in described.items():
        typer.echo(f"{name:24}{value}")


def _describe() -> dict[str, str]:
    import cv2
    import keras
    import numpy as np
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from kgradcam.data.sources import data_folder

    devices = [device.name.split(":", 1)[1] for device in tf.config.list_physical_devices()]
    return {
        "kgradcam": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "tensorflow": tf.__version__,
        "keras": f"{keras.__version__}, {keras.backend.backend()} backend",
        "tensorflow-datasets": tfds.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "devices": ", ".join(devices),
        "cores": str(os.cpu_count()),
        "XLA": _xla(),
        "oneDNN": _one_dnn(),
        "data folder": str(data_folder()),
        "weights cache": os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"),
    }


def _xla() -> str:
    """Compiles one addition: XLA can be built in and still fail."""
    import tensorflow as tf

    try:
        tf.function(lambda x: x + 1.0, jit_compile=True)(tf.constant(1.0))
    except (tf.errors.OpError, ValueError) as error:
        return f"fails: {error}"
    return "works"


def _one_dnn() -> str:
    setting = os.environ.get("TF_ENABLE_ONEDNN_OPTS")
    if setting is None:
        return "TensorFlow's default (on for x86-64 Linux)"
    return f"TF_ENABLE_ONEDNN_OPTS={setting}"
