"""Small networks and images that several test files share; needs TensorFlow."""

import keras
import numpy as np

RANDOM = np.random.default_rng(5)


def pictures(count: int = 2, *shape: int) -> np.ndarray:
    return RANDOM.normal(size=(count, *(shape or (12, 12, 3)))).astype(np.float32)


def backbone(name: str = "backbone", size: int | None = 12) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="last")(x)
    return keras.Model(inputs, x, name=name)


def head(x, classes: int = 3, activation: str | None = None):
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(classes, activation=activation, name="head")(x)


def cam_of(features: keras.Model, dense: keras.layers.Dense, images: np.ndarray) -> np.ndarray:
    """CAM by hand, which Grad-CAM equals on such a head: `[batch, classes, h, w]`."""
    maps = features(images).numpy()
    area = maps.shape[1] * maps.shape[2]
    return np.maximum(np.einsum("bhwk,kc->bchw", maps, dense.kernel.numpy()) / area, 0)


def normalized_network() -> keras.Model:
    """Convolutions with biases and batch normalizations, one of them depthwise; a residual sum."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = stem = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, use_bias=False)(x)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(scale=False)(x))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 1)(x))
    x = keras.layers.Add(name="sum")([x, stem])
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation("relu", name="last")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    for variable in model.variables:
        values = RANDOM.uniform(0.5, 1.5, variable.shape)
        if "kernel" not in variable.path or "head" in variable.path:
            variable.assign(values)
    return model
