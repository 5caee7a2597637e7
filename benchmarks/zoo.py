"""Which layer is explained in the models of other packages, and whether its heatmap is right.

    pip install keras-hub
    python benchmarks/zoo.py [NAME ...]

Every model has random weights: the layer and the arithmetic do not depend on them. Families of
keras.applications are built as they are, those of KerasHub in a small size. The heatmap is compared
with Grad-CAM by an eager `tf.GradientTape`, as its largest difference relative to its maximum. A
package that is missing, or a model that fails, is a row that says why.
"""

import importlib
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kgradcam import GradCAM
from kgradcam.heatmaps.layers import record_calls

SIZE, CLASSES = 64, 5
APPLICATIONS = (
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3"),
    *("InceptionResNetV2", "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile"),
    *("ResNet50", "ResNet50V2", "VGG16", "Xception"),
)
IMAGE = {"image_shape": (SIZE, SIZE, 3)}
TOKENS = {**IMAGE, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 16],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
    "block_type": "basic_block",
    **IMAGE,
}
MIT = {
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.0,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [8, 16],
    **IMAGE,
}
SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4, **IMAGE}
CLIP = {
    **{"patch_size": 16, "hidden_dim": 16, "num_layers": 2, "num_heads": 2},
    **{"intermediate_dim": 32, "image_shape": (SIZE, SIZE, 3)},
}
HUB: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT, class token": ("ViTBackbone", {**TOKENS, "mlp_dim": 32}),
    "ViT, mean": ("ViTBackbone", {**TOKENS, "mlp_dim": 32, "use_class_token": False}),
    "DeiT": ("DeiTBackbone", {**TOKENS, "intermediate_dim": 32}),
    "DINOv2": ("DINOV2Backbone", {**TOKENS, "intermediate_dim": 32, "num_register_tokens": 2}),
    "DINOv3": ("DINOV3Backbone", {**TOKENS, "intermediate_dim": 32}),
    "Swin": ("SwinTransformerBackbone", SWIN),
    "MiT": ("MiTBackbone", MIT),
    "CLIP, vision": ("CLIPVisionEncoder", {**CLIP, "intermediate_activation": "quick_gelu"}),
    "SigLIP, vision": ("SigLIPVisionEncoder", CLIP),
    "ResNet": ("ResNetBackbone", RESNET),
    "ResNet v2": ("ResNetBackbone", {**RESNET, "use_pre_activation": True}),
    "DenseNet": ("DenseNetBackbone", {"stackwise_num_repeats": [2, 2], **IMAGE}),
    "VGG": (
        "VGGBackbone",
        {"stackwise_num_repeats": [1, 1], "stackwise_num_filters": [4, 8], **IMAGE},
    ),
}


def applications() -> Iterator[tuple[str, Callable[[], keras.Model]]]:
    for name in APPLICATIONS:
        size = 96 if name in ("InceptionV3", "InceptionResNetV2", "Xception") else SIZE
        options = {"weights": None, "classes": CLASSES, "input_shape": (size, size, 3)}

        def build(name: str = name, options: Any = options) -> keras.Model:
            return getattr(keras.applications, name)(classifier_activation=None, **options)

        yield f"{name}", build


def keras_hub() -> Iterator[tuple[str, Callable[[], keras.Model]]]:
    import keras_hub as hub

    classes = {**vars(hub.models), **vars(hub.layers)}
    for name, (kind, options) in HUB.items():
        if kind not in classes:  # encoders are no public names
            classes[kind] = _hidden(hub, kind)

        def build(name: str = name, kind: str = kind, options: Any = options) -> keras.Model:
            accepted = inspect.signature(classes[kind].__init__).parameters
            backbone = classes[kind](**{k: v for k, v in options.items() if k in accepted})
            image = keras.Input((SIZE, SIZE, 3))
            named = isinstance(backbone.input, dict)
            features = backbone(dict.fromkeys(backbone.input, image) if named else image)
            if isinstance(features, dict | list | tuple):
                features = keras.tree.flatten(features)[0]
            if len(features.shape) == 2:
                pooled = features
            elif len(features.shape) == 4:
                pooled = keras.layers.GlobalAveragePooling2D()(features)
            elif "class" in name or "DeiT" in kind or "DINO" in kind:
                pooled = features[:, 0]
            else:
                pooled = keras.layers.GlobalAveragePooling1D()(features)
            return keras.Model(image, keras.layers.Dense(CLASSES, name="head")(pooled))

        yield name, build


def _hidden(hub: Any, kind: str) -> Any:
    family = "clip" if kind.startswith("CLIP") else "siglip"
    module = importlib.import_module(f"keras_hub.src.models.{family}.{family}_vision_encoder")
    return getattr(module, kind)


def by_tape(model: keras.Model, path: str, images: Any, shape: tuple[int, ...]) -> Any:
    """Grad-CAM of class 1 before its ReLU, at the layer `path`; tokens as a grid of `shape`."""
    found = {}
    with tf.GradientTape() as tape:

        def tap(name: str, output: Any) -> Any:
            if name == path:
                tape.watch(output)
                found["maps"] = output
            return output

        with record_calls(model, tap):
            scores = model(images, training=False)
        score = tf.reduce_sum(scores[:, 1])
    if not found:
        return None  # a sum or product that is written outside of layers
    maps = found["maps"]
    gradients = tape.gradient(score, maps)
    if maps.shape.rank == 3:
        count = shape[1] * shape[2]
        places = slice(maps.shape[1] - count, None)  # class and register tokens come first
        maps, gradients = (
            tf.reshape(each[:, places], (*shape, each.shape[-1])) for each in (maps, gradients)
        )
    alphas = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.reduce_sum(alphas * maps, axis=-1).numpy()


def row(name: str, build: Callable[[], keras.Model]) -> str:
    keras.utils.set_random_seed(0)
    try:
        model = build()
        images = np.random.default_rng(0).random((2, *model.input_shape[1:])).astype(np.float32)
        cam = GradCAM(model, relu=False)
        heatmaps = cam(images, classes=[1]).heatmaps[:, 0]
    except Exception as error:
        return f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:90]} | | |"
    grid = "x".join(map(str, heatmaps.shape[1:]))
    expected = by_tape(model, str(cam.layer), images, heatmaps.shape)
    if expected is None:
        agreement = "a sum between layers"
    else:
        largest = np.abs(expected).max()
        worst = np.abs(heatmaps - expected).max()
        agreement = f"{worst / largest:.0e}" if largest else "no gradient"
    return f"| {name} | `{cam.layer}` | {grid} | {agreement} |"


def main() -> None:
    wanted = sys.argv[1:]
    for title, package, models in (
        ("keras.applications", "keras", applications),
        ("KerasHub", "keras-hub", keras_hub),
    ):
        try:
            rows = list(models())
        except ImportError as error:
            print(f"\n{title} is missing: {error}")
            continue
        print(f"\n| {title} {importlib.metadata.version(package)} | layer | grid | difference |")
        print("| --- | --- | --- | --- |", flush=True)
        for name, build in rows:
            if not wanted or name in wanted:
                print(row(name, build), flush=True)


if __name__ == "__main__":
    main()
