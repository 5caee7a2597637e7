"""Which layer is explained in the models of other packages, and whether its heatmap is right.

    pip install keras-hub
    python benchmarks/zoo.py [NAME ...]

Every model has random weights: the layer and the arithmetic do not depend on them. Families of
keras.applications are built as they are, those of KerasHub in a small size. The score is that of a
class, of a class of a segmentation, or of one detection. The heatmap is compared with Grad-CAM by
an eager `tf.GradientTape`, as its largest difference relative to its maximum. A package that is
missing, or a model that fails, is a row with the reason.
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

from kgradcam import GradCAM, targets
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


# Stages at strides 4, 4, 8 and 16, of 64 channels, as the convolution before them has.
STAGES = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 16, 16, 16],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
}
HGNET = {
    "depths": [1, 1, 1, 1],
    "embedding_size": 8,
    "hidden_sizes": [16, 32, 64, 64],
    "stem_channels": [3, 8, 8],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "use_lightweight_conv_block": [False, False, True, True],
    "stackwise_stage_filters": [
        *([8, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3], [32, 16, 64, 1, 1, 3], [64, 16, 64, 1, 1, 3])
    ],
    "apply_downsample": [False, True, True, True],
}
DFINE = {
    **{"decoder_in_channels": [16, 16], "encoder_hidden_dim": 16, "hidden_dim": 16},
    **{"num_queries": 10, "num_labels": 3, "num_denoising": 0, "learn_initial_query": False},
    **{"feat_strides": [16, 32], "num_feature_levels": 2, "encoder_in_channels": [64, 64]},
    **{"encode_proj_layers": [1], "num_attention_heads": 2, "encoder_ffn_dim": 32},
    **{"num_encoder_layers": 1, "hidden_expansion": 0.34, "depth_multiplier": 0.5, "eval_idx": -1},
    **{"num_decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32},
    **{"decoder_n_points": [6, 6], "lqe_hidden_dim": 16, "num_lqe_layers": 2},
    "anchor_image_size": (128, 128),
}
Explained = tuple[keras.Model, Any, Callable[[Any], Any]]
"""A model, its `score=`, and the same score as a formula, `[batch]`."""


def class_one(outputs: Any) -> Any:
    return outputs[:, 1]


def segmented(outputs: Any) -> Any:
    """The sum of class 1, where it is the highest."""
    highest = tf.cast(tf.argmax(outputs, axis=-1) == 1, tf.float32)
    return tf.reduce_sum(outputs[..., 1] * highest, axis=(1, 2))


def salient(outputs: Any) -> Any:
    """The sum of the logits of one sigmoid over the picture."""
    logits = tf.math.log(outputs) - tf.math.log1p(-outputs)
    return tf.reduce_sum(logits, axis=(1, 2, 3))


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


def keras_hub_tasks() -> Iterator[tuple[str, Callable[[], Explained]]]:
    """Segmenters and detectors, whose classes are `kgradcam.targets`."""
    import keras_hub as hub

    models = hub.models

    def segformer() -> Explained:
        backbone = models.SegFormerBackbone(models.MiTBackbone(**MIT), projection_filters=16)
        model = models.SegFormerImageSegmenter(backbone, num_classes=CLASSES)
        return model, targets.segmentation(1), segmented

    def deeplab() -> Explained:
        backbone = models.DeepLabV3Backbone(
            models.ResNetBackbone(**STAGES),
            *("P4", 4, [1, 2]),
            low_level_feature_key="P2",
            **IMAGE,
        )
        model = models.DeepLabV3ImageSegmenter(backbone, num_classes=CLASSES)
        return model, targets.segmentation(1), segmented

    def basnet() -> Explained:
        filters = {"stackwise_num_filters": [64, 128, 256, 512]}
        encoder = models.ResNetBackbone(**{**STAGES, **filters})
        backbone = models.BASNetBackbone(encoder, num_classes=1, **IMAGE)
        return models.BASNetImageSegmenter(backbone), targets.segmentation(0), salient

    def retinanet() -> Explained:
        encoder = models.ResNetBackbone(**STAGES)
        backbone = models.RetinaNetBackbone(encoder, 3, 5, use_p5=False, **IMAGE)
        model = models.RetinaNetObjectDetector(backbone, num_classes=CLASSES)
        score = targets.detection(200, 1, output="cls_logits")
        return model, score, lambda outputs: outputs["cls_logits"][:, 200, 1]

    def dfine() -> Explained:
        size, stages = {"image_shape": (128, 128, 3)}, {"out_features": ["stage3", "stage4"]}
        encoder = models.HGNetV2Backbone(**HGNET, **size, **stages)
        backbone = models.DFineBackbone(encoder, **DFINE, **size, **stages)
        model = models.DFineObjectDetector(backbone, num_classes=3)
        score = targets.detection(2, 1, output="logits")
        return model, score, lambda outputs: outputs["logits"][:, 2, 1]

    yield "SegFormer, a class", segformer
    yield "DeepLabV3+, a class", deeplab
    yield "BASNet, the salient object", basnet
    yield "RetinaNet, an anchor", retinanet
    yield "D-FINE, a query", dfine


def _hidden(hub: Any, kind: str) -> Any:
    family = "clip" if kind.startswith("CLIP") else "siglip"
    module = importlib.import_module(f"keras_hub.src.models.{family}.{family}_vision_encoder")
    return getattr(module, kind)


def by_tape(
    model: keras.Model, path: str, images: Any, shape: tuple[int, ...], score: Any = class_one
) -> Any:
    """Grad-CAM of a score before its ReLU, at the layer `path`; tokens as a grid of `shape`."""
    found = {}
    with tf.GradientTape() as tape:

        def tap(name: str, output: Any) -> Any:
            if name == path:
                tape.watch(output)
                found["maps"] = output
            return output

        with record_calls(model, tap):
            total = tf.reduce_sum(score(model(images, training=False)))
    if not found:
        return None  # a sum or product that is written outside of layers
    maps = found["maps"]
    gradients = tape.gradient(total, maps)
    if maps.shape.rank == 3:
        count = shape[1] * shape[2]
        places = slice(maps.shape[1] - count, None)  # class and register tokens come first
        maps, gradients = (
            tf.reshape(each[:, places], (*shape, each.shape[-1])) for each in (maps, gradients)
        )
    alphas = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.reduce_sum(alphas * maps, axis=-1).numpy()


def row(name: str, build: Callable[[], Any]) -> str:
    keras.utils.set_random_seed(0)
    try:
        built = build()
        model, score, formula = built if isinstance(built, tuple) else (built, None, class_one)
        images = np.random.default_rng(0).random((2, *model.input_shape[1:])).astype(np.float32)
        cam = GradCAM(model, score=score, relu=False)
        heatmaps = cam(images, None if score else [1]).heatmaps[:, 0]
    except Exception as error:
        return f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:90]} | | |"
    grid = "x".join(map(str, heatmaps.shape[1:]))
    expected = by_tape(model, str(cam.layer), images, heatmaps.shape, formula)
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
        ("KerasHub, targets", "keras-hub", keras_hub_tasks),
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
