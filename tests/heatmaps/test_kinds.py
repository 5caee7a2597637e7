"""A table of kinds of models: the map that is explained, and its heatmap by an eager tape."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM

K, ops, Input = keras.layers, keras.ops, keras.Input
Parts = tuple[Any, Any, Any]
"""The input, the expected map and the logits of a model."""
SHAPE = (8, 6, 3)


def conv(channels: int = 4, size: int = 3, **options: Any) -> Any:
    return K.Conv2D(channels, size, **{"padding": "same", "activation": "relu", **options})


def top(maps: Any) -> Any:
    return K.Dense(3)(K.GlobalAveragePooling2D()(maps))


def made_by(make: Callable[[Any], Any]) -> Parts:
    """The output of `make`, a function of a convolution's output, is the map."""
    image = Input(SHAPE)
    maps = make(conv()(image))
    return image, maps, top(maps)


def passed_by(layer: Any) -> Parts:
    """A layer that only selects or moves values; the convolution before it made them."""
    image = Input(SHAPE)
    maps = conv()(conv()(image))
    return image, maps, top(layer(maps))


def read_by(head: Callable[[Any], Any]) -> Parts:
    image = Input(SHAPE)
    maps = conv()(conv()(image))
    return image, maps, head(maps)


def after(front: Callable[[Any], Any], shape: Any) -> Parts:
    """A front that leads to pictures, and a convolution behind it."""
    source = Input(shape)
    maps = conv()(front(source))
    return source, maps, top(maps)


MAKERS: dict[str, Callable[[Any], Any]] = {
    "batch normalization": K.BatchNormalization(),
    "layer normalization": K.LayerNormalization(),
    "group normalization": K.GroupNormalization(2),
    "unit normalization": K.UnitNormalization(),
    "PReLU": K.PReLU(),
    "leaky ReLU": K.LeakyReLU(),
    "ELU": K.ELU(),
    "swish": K.Activation("swish"),
    "gelu": K.Activation("gelu"),
    "ReLU6": K.ReLU(6.0),
    "transposed": K.Conv2DTranspose(4, 3, strides=2),
    "separable": K.SeparableConv2D(4, 3),
    "depthwise": K.DepthwiseConv2D(3),
    "dilated": K.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "grouped": K.Conv2D(4, 3, groups=2),
    "spectral normalization": K.SpectralNormalization(K.Conv2D(4, 3)),
    "1x1": K.Conv2D(4, 1),
    "a dense layer over channels": K.Dense(5),
    "a residual sum": lambda maps: K.Add()([maps, conv()(maps)]),
    "a sum by operations": lambda maps: maps + conv()(maps),
    "a ReLU by operations": lambda maps: ops.relu(maps + conv()(maps)),
    "a square by operations": lambda maps: maps**2,
    "a difference": lambda maps: K.Subtract()([maps, conv()(maps)]),
    "a mean of two": lambda maps: K.Average()([maps, conv()(maps)]),
    "a maximum of two": lambda maps: K.Maximum()([maps, conv()(maps)]),
    "a concatenation": lambda maps: K.Concatenate()([maps, conv()(maps)]),
    "a concatenation by operations": lambda maps: ops.concatenate([maps, conv()(maps)], axis=-1),
    "a spatial gate": lambda maps: maps * conv(1, 5, activation="sigmoid")(maps),
    "a spatial gate as a layer": lambda maps: K.Multiply()([maps, conv(1)(maps) + 0.1]),
    "squeeze and excitation": lambda maps: K.Multiply()(
        [maps, K.Dense(4, "sigmoid")(K.GlobalAveragePooling2D(keepdims=True)(maps))]
    ),
    "attention over places": lambda maps: K.MultiHeadAttention(2, 3, attention_axes=(1, 2))(
        maps, maps
    ),
    "a Sequential inside": lambda maps: keras.Sequential([conv(), conv(5)])(maps),
    "a model in a model": lambda maps: keras.Sequential([keras.Sequential([conv(5)])])(maps),
    "a wrapped layer": lambda maps: K.TimeDistributed(K.Dense(5))(maps),
    "shared convolutions": lambda maps: (lambda layer: layer(layer(maps)))(conv()),
    "a Lambda": K.Lambda(lambda maps: tf.nn.relu(maps - 0.1)),
}
PASSING: dict[str, Any] = {
    "maximum pooling": K.MaxPooling2D(),
    "average pooling": K.AveragePooling2D(2),
    "dropout": K.Dropout(0.5),
    "dropout of channels": K.SpatialDropout2D(0.5),
    "noise": K.GaussianNoise(0.5),
    "padding": K.ZeroPadding2D(2),
    "cropping": K.Cropping2D(1),
    "upsampling": K.UpSampling2D(),
    "bilinear upsampling": K.UpSampling2D(interpolation="bilinear"),
    "resizing": K.Resizing(5, 5),
    "identity": K.Identity(),
    "rescaling": K.Rescaling(2.0),
    "permuted axes": K.Permute((2, 1, 3)),
}
HEADS: dict[str, Callable[[Any], Any]] = {
    "maximum": lambda maps: K.Dense(3)(K.GlobalMaxPooling2D()(maps)),
    "flat": lambda maps: K.Dense(3)(K.Flatten()(maps)),
    "hidden layer": lambda maps: K.Dense(3)(K.Dense(8, "relu")(K.Flatten()(maps))),
    "mean by operations": lambda maps: K.Dense(3)(ops.mean(maps, axis=(1, 2))),
    "maximum by operations": lambda maps: K.Dense(3)(ops.max(maps, axis=(1, 2))),
    "1x1 convolution": lambda maps: K.Flatten()(
        K.Conv2D(3, 1)(K.GlobalAveragePooling2D(keepdims=True)(maps))
    ),
    "convolution of all places": lambda maps: K.Reshape((3,))(K.Conv2D(3, (8, 6))(maps)),
    "two poolings": lambda maps: K.Dense(3)(
        K.Concatenate()([K.GlobalAveragePooling2D()(maps), K.GlobalMaxPooling2D()(maps)])
    ),
    "columns to a recurrence": lambda maps: K.Dense(3)(
        K.LSTM(4)(K.Reshape((6, 32))(K.Permute((2, 1, 3))(maps)))
    ),
    "two heads": lambda maps: K.Concatenate()([top(maps), top(maps)]),
    "cosine": lambda maps: K.Dense(3, use_bias=False)(
        K.UnitNormalization()(K.GlobalAveragePooling2D()(maps))
    ),
    "maxout": lambda maps: ops.max(K.Reshape((3, 2))(K.Dense(6)(K.Flatten()(maps))), axis=-1),
}
FRONTS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "no channel axis": (K.Reshape((8, 6, 1)), (8, 6)),
    "a flat picture": (K.Reshape((8, 6, 1)), (48,)),
    "rescaled": (K.Rescaling(1 / 255), SHAPE),
    "normalized": (K.Normalization(mean=0.5, variance=2.0), SHAPE),
    "flipped": (K.RandomFlip(), SHAPE),
    "resized": (K.Resizing(6, 6), SHAPE),
    "grey to colors": (lambda image: K.Concatenate()([image, image, image]), (8, 6, 1)),
    "a series": (
        lambda series: K.Reshape((12, 8, 1))(K.Conv1D(8, 3, padding="same")(series)),
        (12, 3),
    ),
    "a generator": (lambda code: K.Reshape((4, 4, 3))(K.Dense(48)(code)), (5,)),
    "a spectrogram": (
        lambda wave: ops.expand_dims(
            ops.log(1.0 + ops.abs(ops.stft(wave, 16, 8, 16)[0]) + 0.0), axis=-1
        ),
        (96,),
    ),
    "a volume": (
        lambda volume: K.Reshape((6, 6, 8))(K.Permute((2, 3, 1, 4))(K.Conv3D(2, 1)(volume))),
        (4, 6, 6, 1),
    ),
    "a video": (K.ConvLSTM2D(3, 3), (2, 8, 8, 3)),
    "channels first": (K.Permute((2, 3, 1)), (3, 8, 6)),
}


def attention(tokens: Any) -> Any:
    normed = K.LayerNormalization()(tokens)
    tokens = K.Add()([tokens, K.MultiHeadAttention(2, 4)(normed, normed)])
    return K.Add()([tokens, K.Dense(8)(K.LayerNormalization()(tokens))])


def mixer(tokens: Any) -> Any:
    mixed = K.Permute((2, 1))(K.Dense(12)(K.Permute((2, 1))(K.LayerNormalization()(tokens))))
    tokens = K.Add()([tokens, mixed])
    return K.Add()([tokens, K.Dense(8, "gelu")(K.LayerNormalization()(tokens))])


class Extra(K.Layer):
    """Class and register tokens before those of patches."""

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.count = count

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, self.count, shape[-1]), name="token")

    def call(self, tokens: Any) -> Any:
        first = tf.repeat(tf.convert_to_tensor(self.token), tf.shape(tokens)[0], axis=0)
        return tf.concat([first, tokens], axis=1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], shape[1] + self.count, shape[2])


def tokens(extra: int, blocks: list[Any], head: str, explained: int) -> Parts:
    """Patches of 4 x 3, blocks, a norm; the output of `blocks[explained]`, or of the norm."""
    image = Input((16, 12, 3))
    stream = K.Reshape((12, 8))(K.Conv2D(8, 4, strides=4)(image))
    stream = Extra(extra)(stream) if extra else stream
    streams = []
    for block in blocks:
        stream = block(stream)
        streams.append(stream)
    streams.append(K.LayerNormalization()(stream))
    pooled = {
        "mean": lambda: K.GlobalAveragePooling1D()(streams[-1]),
        "class": lambda: streams[-1][:, 0],
        "patches": lambda: ops.mean(streams[-1][:, extra:], axis=1),
        "grid": lambda: K.GlobalAveragePooling2D()(K.Reshape((4, 3, 8))(streams[-1])),
    }[head]()
    return image, streams[explained], K.Dense(3)(pooled)


def recurrent_grid() -> Parts:
    image = Input((16, 12, 3))
    rows = K.Reshape((12, 8))(K.Conv2D(8, 4, strides=4)(image))
    grid = K.Reshape((4, 3, 8))(rows + K.Dense(8)(K.LayerNormalization()(rows)))
    return image, grid, top(grid)


def auxiliary_head() -> Parts:
    image = Input(SHAPE)
    early = conv()(image)
    late = conv()(early)
    return image, early, {"main": top(early), "aside": top(late)}


def unused_map() -> Parts:
    image = Input(SHAPE)
    maps = conv()(image)
    return image, maps, {"main": top(maps), "mask": conv(2)(conv()(maps))}


def channels_first(make: Callable[[Any], Any]) -> Parts:
    image = Input((3, 8, 6))
    maps = make(K.Conv2D(4, 3, data_format="channels_first")(image))
    return image, maps, K.Dense(3)(K.GlobalAveragePooling2D(data_format="channels_first")(maps))


FIRST = {
    "channels first, as it is": lambda maps: maps,
    "channels first, normalized": K.BatchNormalization(axis=1),
    "channels first, activated": K.Activation("swish"),
    "channels first, a sum": lambda maps: ops.relu(
        maps + K.Conv2D(4, 3, padding="same", data_format="channels_first")(maps)
    ),
}
ONE = {
    "a series to a class": lambda: series(K.Conv1D(4, 3), K.GlobalAveragePooling1D()),
    "a recurrent series": lambda: series(K.LSTM(4, return_sequences=True), K.GlobalMaxPooling1D()),
    "a volume to a class": lambda: volume(),
    "frames of a video": lambda: frames(),
}


def series(make: Any, pool: Any) -> Parts:
    source = Input((10, 3))
    maps = make(source)
    return source, maps, K.Dense(3)(pool(maps))


def maps_as_input() -> Parts:
    maps = Input((5, 4, 16))
    return maps, maps, top(maps)


def volume() -> Parts:
    source = Input((4, 5, 6, 1))
    maps = K.Conv3D(4, 3, padding="same", activation="relu")(source)
    return source, maps, K.Dense(3)(K.GlobalAveragePooling3D()(maps))


def frames() -> Parts:
    source = Input((3, 6, 6, 1))
    maps = K.TimeDistributed(K.Conv2D(4, 3, activation="relu"))(source)
    return source, maps, K.Dense(3)(K.GlobalAveragePooling3D()(maps))


KINDS: dict[str, Callable[[], Parts]] = {
    **{name: lambda make=make: made_by(make) for name, make in MAKERS.items()},
    **{f"{name} behind it": lambda layer=each: passed_by(layer) for name, each in PASSING.items()},
    **{f"head: {name}": lambda head=head: read_by(head) for name, head in HEADS.items()},
    **{f"front: {name}": lambda each=each: after(*each) for name, each in FRONTS.items()},
    **{name: lambda make=make: channels_first(make) for name, make in FIRST.items()},
    **ONE,
    "ViT, mean": lambda: tokens(0, [attention, attention], "mean", -1),
    "ViT, class token": lambda: tokens(1, [attention, attention], "class", 0),
    "ViT, class and registers": lambda: tokens(3, [attention, attention], "class", 0),
    "ViT, patches": lambda: tokens(1, [attention], "patches", -1),
    "Mixer": lambda: tokens(0, [mixer, mixer], "mean", -1),
    "ViT, grid": lambda: tokens(0, [attention], "grid", -1),
    "tokens back to a grid": recurrent_grid,
    "maps as the input": maps_as_input,
    "an auxiliary head behind": auxiliary_head,
    "a mask beside": unused_map,
}


def as_maps(tensor: Any, heatmaps: Any, first: bool) -> Any:
    """Channels last; tokens as the grid of the heatmaps, without those that lead them."""
    if first:
        return tf.transpose(tensor, (0, 2, 3, 1))
    if tensor.shape.rank == 3 and heatmaps.ndim == 3:
        count = heatmaps.shape[1] * heatmaps.shape[2]
        return tf.reshape(tensor[:, tensor.shape[1] - count :], (*heatmaps.shape, -1))
    return tensor


def by_tape(parts: Parts, batch: Any, heatmaps: Any, first: bool) -> Any:
    """Grad-CAM of class 1 before the ReLU, from an eager tape: `[batch, height, width]`."""
    source, maps, logits = parts
    with tf.GradientTape() as tape:
        images = tf.constant(batch)
        tape.watch(images)
        features, scores = keras.Model(source, [maps, logits])(images, training=False)
        score = tf.reduce_sum(scores[:, 1])
    gradients = as_maps(tape.gradient(score, features), heatmaps, first)
    space = tuple(range(1, gradients.shape.rank - 1))
    alphas = tf.reduce_mean(gradients, axis=space, keepdims=True)
    return tf.reduce_sum(alphas * as_maps(features, heatmaps, first), axis=-1).numpy()


@pytest.mark.parametrize("name", KINDS)
def test_the_layer_and_heatmap_of_a_kind(name: str) -> None:
    keras.utils.set_random_seed(3)
    source, maps, logits = KINDS[name]()
    several = isinstance(logits, dict)
    cam = GradCAM(keras.Model(source, logits), relu=False, output="main" if several else None)
    batch = np.random.default_rng(0).normal(size=(2, *source.shape[1:])).astype(np.float32)
    found = cam(batch, classes=[1]).heatmaps[:, 0]
    parts = source, maps, logits["main"] if several else logits
    expected = by_tape(parts, batch, found, name in FIRST)
    assert found.shape == expected.shape, cam.layer
    largest = np.abs(expected).max()
    assert largest > 0
    assert np.abs(found - expected).max() <= 1e-4 * largest, cam.layer


def test_there_are_eighty_kinds() -> None:
    assert len(KINDS) >= 80


@pytest.mark.parametrize(
    "middle",
    [K.Rescaling(1 / 255), K.Normalization(mean=0.0, variance=1.0), K.RandomFlip(), K.Dropout(0.1)],
    ids=lambda layer: layer.name,
)
def test_a_model_without_a_learned_map_is_refused(middle: Any) -> None:
    model = keras.Sequential([Input((8, 8, 3)), middle, K.Flatten(), K.Dense(3)])
    with pytest.raises(UserError, match="no layer with a feature map"):
        GradCAM(model)
