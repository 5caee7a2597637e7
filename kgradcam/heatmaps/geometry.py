"""Where the cells of a feature map lie on the image, and resampling by it.

The cells of a layer tile the part of the image that the network saw. With padding this is the whole
image, on whichever side the padding lies: a trained network has corrected the shift of its padding.
A border that a convolution without padding cuts off has no cells, whatever the training.
`docs/localization.md` has the measurements.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_POOLS = ("MaxPool", "AvgPool")
_PADS = ("Pad", "PadV2", "MirrorPad")

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The extent of cells that tile the whole image."""


@dataclass(frozen=True)
class _Window:
    """The kernel size, stride and padding of an operation along one axis.

    A padding of `None` is TensorFlow's `same`, which depends on the input size.
    """

    kernel_size: int
    stride: int
    padding: tuple[int, int] | None

    @property
    def is_pad(self) -> bool:
        return self.kernel_size == self.stride == 1


def stride(feature_maps: Any) -> int:
    """Returns the distance of two cells in input pixels: 32 at the end of most networks.

    Args:
        feature_maps: A symbolic tensor `[batch, height, width, channels]` of a model's trace.
    """
    return int(np.prod([window.stride for window in _windows(feature_maps)[0]]))


def extent_of(feature_maps: Any, inputs: Any) -> Any:
    """Returns the part of the image that the cells of a feature map tile.

    Args:
        feature_maps: A symbolic tensor `[batch, height, width, channels]` of a model's trace.
        inputs: The inputs of the model in that trace.

    Returns:
        float32 `[4]`, xyxy in fractions of the image's width and height. The whole image where an
        operation before the layer is unknown or has no grid (tokens), or where the inputs are not
        one image.
    """
    if not tf.is_tensor(inputs) or inputs.shape.rank != 4 or feature_maps.shape.rank != 4:
        return tf.constant(WHOLE)
    (top, bottom), (left, right) = (
        _tiled_range(windows, tf.shape(inputs)[axis], tf.shape(feature_maps)[axis])
        for axis, windows in enumerate(_windows(feature_maps), start=1)
    )
    return tf.stack([left, top, right, bottom])


def _tiled_range(windows: list[_Window], size: Any, cells: Any) -> tuple[Any, Any]:
    """The ends of the part of an axis that the cells tile, in fractions of its size.

    In n steps of stride s a window reads its input at n * s cells, which its n cells represent. If
    the input has more, the kernel extends (kernel_size - s) / 2 cells beyond them at the start,
    less the padding there; these are lost, and the rest at the end.
    """
    length, low, high = size, tf.constant(0.0), tf.cast(size, tf.float32)
    for window in windows:
        if window.padding is None:
            length = -(-length // window.stride)
            continue
        before, after = window.padding
        steps = (length + before + after - window.kernel_size) // window.stride + 1
        lost = tf.cast(tf.maximum(length - steps * window.stride, 0), tf.float32)
        at_start = tf.minimum(max((window.kernel_size - window.stride) / 2 - before, 0.0), lost)
        pitch = (high - low) / tf.cast(length, tf.float32)
        low, high = low + at_start * pitch, high - (lost - at_start) * pitch
        length = steps
    known = tf.equal(length, cells)
    whole = tf.cast(size, tf.float32)
    return tf.where(known, low / whole, 0.0), tf.where(known, high / whole, 1.0)


def resample(maps: Any, extent: Any, cells: Any) -> Any:
    """Resamples maps to cells that tile the whole image.

    Values are linear between the centres of the old cells, and constant beyond the outermost. Where
    the new cells are larger, a wider triangle averages the old cells inside each.

    Args:
        maps: float32 `[batch, height, width, channels]`.
        extent: The part of the image that their cells tile, from `extent_of`.
        cells: int32 `[2]`, rows and columns of the result.

    Returns:
        float32 `[batch, cells[0], cells[1], channels]`.
    """
    rows = _weights(extent[1], extent[3], tf.shape(maps)[1], cells[0])
    columns = _weights(extent[0], extent[2], tf.shape(maps)[2], cells[1])
    return tf.einsum("bhwc,rh,sw->brsc", maps, rows, columns)


def spelled_out(equation: str, maps: Any) -> str:
    """Returns an equation of `tf.einsum` with letters in place of "...", the axes between two.

    TensorFlow.js reads no ellipsis.

    Args:
        equation: The equation.
        maps: A tensor of two axes besides the spatial ones. If their number is unknown, the
            ellipsis stays.

    Example:
        >>> spelled_out("b...k->kb...", tf.zeros((2, 7, 9, 3)))
        'bxyk->kbxy'
    """
    rank = maps.shape.rank
    return equation if rank is None else equation.replace("...", "xyzuvw"[: rank - 2])


def _weights(low: Any, high: Any, count: Any, cells: Any) -> Any:
    """The weight of each old cell in each new one, `[cells, count]`; rows sum to 1."""
    pitch = (high - low) / tf.cast(count, tf.float32)
    step = 1.0 / tf.cast(cells, tf.float32)
    centres = (tf.cast(tf.range(cells), tf.float32) + 0.5) * step
    places = (centres - low) / pitch - 0.5
    places = tf.clip_by_value(places, 0.0, tf.cast(count - 1, tf.float32))
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
            _prepend(down, windows[0])
            _prepend(across, windows[1])
        tensor = _image_like(operation)
        if tensor is None:
            return [], []
    return down, across


def _prepend(windows: list[_Window], window: _Window) -> None:
    """Adds the window before the others; a pad joins the padding of the window after it."""
    if window.is_pad and windows and windows[0].padding is not None and window.padding is not None:
        after = windows[0].padding
        both = (window.padding[0] + after[0], window.padding[1] + after[1])
        windows[0] = replace(windows[0], padding=both)
    else:
        windows.insert(0, window)


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
        rows, columns = ((int(before), int(after)) for before, after in paddings[1:3])
        return _Window(1, 1, rows), _Window(1, 1, columns)
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
