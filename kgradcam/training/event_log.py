"""Writes scalars and pictures into TensorBoard logs.

`tf.summary.scalar` and `tf.summary.image` need the tensorboard package. `tf.summary.write` does
not, so only readers of a log need that package.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import tensorflow as tf


def write_scalars(writer: Any, values: Mapping[str, float], step: int) -> None:
    """Appends scalars to a log.

    Args:
        writer: A writer made by `tf.summary.create_file_writer`.
        values: The scalars by tag.
        step: The epoch.
    """
    with writer.as_default():
        for tag, value in values.items():
            tf.summary.write(tag, tf.constant(value, tf.float32), step, _metadata("scalars"))
    writer.flush()


def write_pictures(
    writer: Any, tag: str, pictures: Sequence[npt.NDArray[np.uint8]], step: int
) -> None:
    """Appends pictures of one size to a log, as PNG.

    Args:
        writer: A writer made by `tf.summary.create_file_writer`.
        tag: The name of the series.
        pictures: uint8 `[height, width, 3]` each.
        step: The epoch.
    """
    height, width = pictures[0].shape[:2]
    encoded = []
    for picture in pictures:
        buffer = io.BytesIO()
        PIL.Image.fromarray(picture).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    # The layout of the images plugin: width and height as text, then the files.
    content = tf.constant([str(width).encode(), str(height).encode(), *encoded])
    with writer.as_default():
        tf.summary.write(tag, content, step, _metadata("images"))
    writer.flush()


def _metadata(plugin: str) -> Any:
    data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
    return tf.compat.v1.SummaryMetadata(plugin_data=data)
