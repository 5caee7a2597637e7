"""Warm-up requests of TensorFlow Serving, which runs them before it accepts others.

The file holds `tensorflow.serving.PredictionLog` messages. Their package needs a release of
TensorFlow of its own, and all fields used here are nested messages and strings: so they are encoded
by hand, as the protocol buffer format defines it.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

FILE = Path("assets.extra") / "tf_serving_warmup_requests"


def write_warmup(folder: Path, requests: dict[str, dict[str, npt.NDArray[np.generic]]]) -> None:
    """Writes requests to an exported model.

    Args:
        folder: The folder of the SavedModel.
        requests: For the name of each signature, its inputs.
    """
    path = folder / FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            writer.write(_log(signature, inputs))


def _log(signature: str, inputs: dict[str, npt.NDArray[np.generic]]) -> bytes:
    request = _field(1, _field(3, signature.encode()))  # PredictRequest.model_spec.signature_name
    for name, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))  # an entry of inputs
    return _field(6, _field(1, request))  # PredictionLog.predict_log.request


def _field(number: int, content: bytes) -> bytes:
    """A field of a message, string or bytes: its key, its length, its content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
