"""The centres of receptive fields, and resampling by them.

A cell of a feature map depends on the pixels of its receptive field; its heat belongs to their
centre. Strided layers may pad on one side only, as TensorFlow's `same` does. There, resizing a
heatmap as if its cells tiled the image shifts it by up to half a cell: 15.5 pixels up and left in
EfficientNet at 224 pixels. The centres follow from the strides, kernels and paddings of the
operations before the layer (Araujo et al., "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_POOLS = ("MaxPool", "AvgPool")
_PADS = ("Pad", "PadV2", "MirrorPad")


@dataclass(frozen=True)
class _Window:
    """The kernel size, stride and padding of an operation along one axis.

    A padding of `None` is TensorFlow's `same`, which depends on the input size.
    """

    kernel_size: int
    stride: int
    padding: tuple[int, int] | None


def stride(feature_maps: Any) -> int:
    """Returns the distance of two cells in input pixels: 32 at the end of most networks.

    Args:
        feature_maps: A symbolic tensor `[batch, height, width, channels]` of a model's trace.
    """
    return int(np.prod([window.stride for window in _windows(feature_maps)[0]]))


def cell_centres(feature_maps: Any, size: Any, axis: int) -> Any:
    """Returns the centres of the receptive fields along an axis.

    Args:
        feature_maps: A symbolic tensor `[batch, height, width, channels]` of a model's trace.
        size: Pixels of the model's input along that axis, int32.
        axis: 0 for height, 1 for width.

    Returns:
        float32 `[cells]`: the centres in pixels of the input; the centre of its first pixel is 0.5.
        Where an operation before the layer is unknown, or has no grid (tokens), the cells are
        assumed to tile the input.
    """
    cells = tf.shape(feature_maps)[1 + axis]
    length, first, pitch = size, 0.5, 1
    for window in _windows(feature_maps)[axis]:
        if window.padding is None:
            steps = -(-length // window.stride)
            missing = (steps - 1) * window.stride + window.kernel_size - length
            before = tf.maximum(missing, 0) // 2
        else:
            before, after = window.padding
            steps = (length + before + after - window.kernel_size) // window.stride + 1
        shift = (window.kernel_size - 1) / 2 - tf.cast(before, tf.float32)
        length, first, pitch = steps, first + pitch * shift, pitch * window.stride
    index = tf.cast(tf.range(cells), tf.float32)
    tiled = (index + 0.5) * tf.cast(size, tf.float32) / tf.cast(cells, tf.float32)
    return tf.where(tf.equal(length, cells), first + pitch * index, tiled)


def resample(maps: Any, centres: tuple[Any, Any], size: tuple[Any, Any], cells: Any) -> Any:
    """Resamples maps to cells that tile the image.

    Values are linear between the centres, and constant beyond the outermost. Where the new cells
    are larger, a wider triangle averages the old cells inside each.

    Args:
        maps: float32 `[batch, height, width, channels]`.
        centres: The centres of the rows and of the columns of `maps`, from `cell_centres`.
        size: Height and width of the image, in the same pixels.
        cells: int32 `[2]`, rows and columns of the result.

    Returns:
        float32 `[batch, cells[0], cells[1], channels]`.
    """
    rows = _weights(centres[0], size[0], cells[0])
    columns = _weights(centres[1], size[1], cells[1])
    return tf.einsum("bhwc,rh,sw->brsc", maps, rows, columns)


def _weights(centres: Any, size: Any, cells: Any) -> Any:
    """The weight of each old cell in each new one, `[cells, sources]`; rows sum to 1."""
    count = tf.shape(centres)[0]
    pitch = (centres[-1] - centres[0]) / tf.cast(tf.maximum(count - 1, 1), tf.float32)
    pitch = tf.where(count > 1, pitch, 1.0)
    step = tf.cast(size, tf.float32) / tf.cast(cells, tf.float32)
    wanted = (tf.cast(tf.range(cells), tf.float32) + 0.5) * step
    places = (tf.clip_by_value(wanted, centres[0], centres[-1]) - centres[0]) / pitch
    reach = tf.maximum(step / pitch, 1.0)
    distances = tf.abs(places[:, None] - tf.cast(tf.range(count), tf.float32))
    weights = tf.nn.relu(1.0 - distances / reach)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _windows(feature_maps: Any) -> tuple[list[_Window], list[_Window]]:
    """The windows from the input to the feature maps, by rows and by columns; empty if unknown."""
    down: list[_Window] = []
    across: list[_Window] = []
    tensor = feature_maps
    while tensor.op.inputs:
        operation = tensor.op
        if operation.type == "BatchToSpaceND":  # TensorFlow's form of a dilated convolution
            while operation.type != "SpaceToBatchND":
                operation = operation.inputs[0].op
        windows = _of_operation(operation)
        if windows is not None:
            down.insert(0, windows[0])
            across.insert(0, windows[1])
        tensor = _image_like(operation)
        if tensor is None:
            return [], []
    return down, across


def _image_like(operation: Any) -> Any:
    """The first input with rows, columns and channels; kernels, shapes and gates have none."""
    inputs = operation.inputs[:1] if operation.type in _CONVOLUTIONS else operation.inputs
    for tensor in inputs:
        if tensor.shape.rank == 4 and set(tensor.shape[1:3]) != {1}:
            return tensor
    return None


def _of_operation(operation: Any) -> tuple[_Window, _Window] | None:
    kind = operation.type
    if kind in _PADS:
        paddings = tf.get_static_value(operation.inputs[1])
        if paddings is None:
            return None
        return _Window(1, 1, tuple(paddings[1])), _Window(1, 1, tuple(paddings[2]))
    if kind not in _CONVOLUTIONS + _POOLS:
        return None
    # With channels first, height and width are the axes 2 and 3.
    place = 2 if operation.get_attr("data_format") == b"NCHW" else 1
    strides = operation.get_attr("strides")[place : place + 2]
    if kind in _POOLS:
        kernel = operation.get_attr("ksize")[place : place + 2]
    else:
        dilations = operation.get_attr("dilations")[place : place + 2]
        kernel = [
            (each - 1) * dilation + 1
            for each, dilation in zip(operation.inputs[1].shape[:2], dilations, strict=True)
        ]
    padding = operation.get_attr("padding")
    explicit = operation.get_attr("explicit_paddings") if padding == b"EXPLICIT" else [0] * 8
    sides = [tuple(explicit[2 * i : 2 * i + 2]) for i in (place, place + 1)]
    down, across = (
        _Window(kernel[i], strides[i], None if padding == b"SAME" else sides[i]) for i in (0, 1)
    )
    return down, across
