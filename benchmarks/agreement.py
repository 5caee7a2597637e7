"""Whether each method gives the heatmaps that other packages give: cosine on the same weights.

    pip install torch grad-cam torchcam
    python benchmarks/agreement.py

A small Keras network is carried over to PyTorch, weight by weight. Its feature maps have the size
of the picture, so that nothing is resized; its head bends and weighs each place differently, so
that the methods differ. For CAM, which needs one, there is a head of pooling and a linear layer.
Heatmaps are compared after the stretch to [0, 1] that the others apply.
A package that is missing or fails is a row that says why.
"""

import copy
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from kgradcam.heatmaps.methods import METHODS

PICTURES, SIZE, CHANNELS, CLASSES = 16, 16, 8, 5


def keras_network(pooled: bool) -> keras.Model:
    keras.utils.set_random_seed(0)
    bent = [
        keras.layers.Permute((3, 1, 2)),  # PyTorch flattens channels first
        keras.layers.Flatten(),
        keras.layers.Dense(32, activation="tanh"),
    ]
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(CHANNELS, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(CHANNELS, 3, padding="same", activation="relu", name="maps"),
            *([keras.layers.GlobalAveragePooling2D()] if pooled else bent),
            keras.layers.Dense(CLASSES),
        ]
    )


def torch_network(model: keras.Model, pooled: bool):
    """The same network; its second ReLU makes the feature maps."""
    import torch
    from torch import nn

    bent = [nn.Flatten(), nn.Linear(CHANNELS * SIZE * SIZE, 32), nn.Tanh()]
    network = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        nn.ReLU(),
        *([nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pooled else bent),
        nn.Linear(CHANNELS if pooled else 32, CLASSES),
    ).eval()
    weights = model.get_weights()
    with torch.no_grad():
        for layer, (kernel, bias) in zip(
            [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)],
            zip(weights[::2], weights[1::2], strict=True),
            strict=True,
        ):
            carried = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(carried)))
            layer.bias.copy_(torch.from_numpy(bias))
    return network


def pytorch_grad_cam(name: str, network, images, classes: list[int]) -> np.ndarray:
    import pytorch_grad_cam as package
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if name == "guided-gradcam":
        where = pytorch_grad_cam("gradcam", network, images, classes)
        guided = package.GuidedBackpropReLUModel(copy.deepcopy(network), "cpu")
        colours = [guided(images[i : i + 1], index) for i, index in enumerate(classes)]
        return where * np.abs(colours).max(axis=-1)
    names = {
        "gradcam": "GradCAM",
        "gradcam++": "GradCAMPlusPlus",
        "xgradcam": "XGradCAM",
        "hirescam": "HiResCAM",
        "layercam": "LayerCAM",
        "eigencam": "EigenCAM",
        "scorecam": "ScoreCAM",
        "ablationcam": "AblationCAM",
    }
    if name not in names:
        raise KeyError("not in the package")
    with getattr(package, names[name])(model=network, target_layers=[network[3]]) as cam:
        return cam(images, targets=[ClassifierOutputTarget(index) for index in classes])


def torchcam(name: str, network, images, classes: list[int]) -> np.ndarray:
    from torchcam import methods

    names = {
        "cam": "CAM",
        "gradcam": "GradCAM",
        "gradcam++": "GradCAMpp",
        "xgradcam": "XGradCAM",
        "layercam": "LayerCAM",
        "scorecam": "ScoreCAM",
    }
    if name not in names:
        raise KeyError("not in the package")
    with getattr(methods, names[name])(network, target_layer=network[3]) as extractor:
        heatmaps = extractor(classes, network(images.requires_grad_(True)))[0]
    return heatmaps.detach().numpy()


def stretched(heatmaps: np.ndarray) -> np.ndarray:
    heatmaps = heatmaps - heatmaps.min(axis=(1, 2), keepdims=True)
    highest = heatmaps.max(axis=(1, 2), keepdims=True)
    return np.divide(heatmaps, highest, out=np.zeros_like(heatmaps), where=highest > 0)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The cosine of each pair of heatmaps; 1 for two that are both without heat."""
    one, other = (np.nan_to_num(maps).reshape(len(maps), -1) for maps in (one, other))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_cold = ~one.any(axis=1) & ~other.any(axis=1)
    products = (one * other).sum(axis=1)
    return np.divide(products, norms, out=both_cold.astype(float), where=norms > 0)


def compare(package: Callable[..., np.ndarray], name: str, network, images, ours, classes) -> str:
    import torch

    try:
        theirs = package(name, network, torch.from_numpy(images.transpose(0, 3, 1, 2)), classes)
    except Exception as error:  # whatever another package does is a row of the table
        return str(error).strip("'\"").splitlines()[0]
    theirs = np.asarray(theirs, np.float64)
    # torchcam's CAM keeps what is negative, as its paper does. A component has no sign of its own:
    # pytorch-grad-cam takes the one that its SVD returns.
    signs = {"cam": [ours], "eigencam": [np.maximum(ours, 0), np.maximum(-ours, 0)]}
    variants = signs.get(name, [np.maximum(ours, 0)])
    found = np.max([cosines(stretched(each), theirs) for each in variants], axis=0)
    return f"{np.median(found):.6f} (least {found.min():.6f})"


def main() -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(PICTURES, SIZE, SIZE, 3)).astype(np.float32)
    print("| method | pytorch-grad-cam | torchcam |\n| --- | --- | --- |")
    for name, method in METHODS.items():
        model = keras_network(pooled=name == "cam")
        network = torch_network(model, pooled=name == "cam")
        classes = model(images).numpy().argmax(axis=1).tolist()
        cam = method(model, layer="maps", relu=False)
        ours = cam(images, class_per_image=classes).heatmaps[:, 0]
        cells = [
            compare(package, name, network, images, ours.astype(np.float64), classes)
            for package in (pytorch_grad_cam, torchcam)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
