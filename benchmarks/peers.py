"""The packages that `throughput.py` compares with, on a ResNet50 with random weights.

Each maker loads its package and returns a function that explains one batch, as its users call it.
PyTorch's network is written here: that of torchvision strides in other places than Keras's.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np

Peer = Callable[[int, int], Callable[[], Any]]

_KERAS_LAYER = "conv5_block3_out"


@cache
def _keras_network(size: int, activation: str | None = None) -> keras.Model:
    return keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classifier_activation=activation
    )


def _keras_images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def tf_keras_vis(batch: int, size: int) -> Callable[[], Any]:
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.utils.scores import CategoricalScore

    cam, images = Gradcam(_keras_network(size), clone=False), _keras_images(batch, size)
    score = CategoricalScore([0] * batch)
    return lambda: cam(score, images, penultimate_layer=_KERAS_LAYER)


def tf_explain(batch: int, size: int) -> Callable[[], Any]:
    from tf_explain.core.grad_cam import GradCAM

    model, images = _keras_network(size, "softmax"), _keras_images(batch, size)
    return lambda: GradCAM().get_gradients_and_filters(model, images, _KERAS_LAYER, 0, True)


def xplique(batch: int, size: int) -> Callable[[], Any]:
    from xplique.attributions import GradCAM

    cam = GradCAM(_keras_network(size), batch_size=batch, conv_layer=_KERAS_LAYER)
    images, targets = _keras_images(batch, size), np.eye(1000, dtype=np.float32)[[0] * batch]
    return lambda: cam(images, targets)


@cache
def _torch_network() -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            after = 4 * width
            parts = [(before, width, 1, stride), (width, width, 3, 1), (width, after, 1, 1)]
            layers = [
                each
                for a, b, kernel, step in parts
                for each in (
                    nn.Conv2d(a, b, kernel, step, kernel // 2),
                    nn.BatchNorm2d(b),
                    nn.ReLU(),
                )
            ]
            self.main = nn.Sequential(*layers[:-1])
            self.short: nn.Module = nn.Identity()
            if before != after:
                self.short = nn.Sequential(
                    nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after)
                )

        def forward(self, x):
            return torch.relu(self.main(x) + self.short(x))

    blocks, before = [], 64
    for width, count, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for i in range(count):
            blocks.append(Block(before, width, stride if i == 0 else 1))
            before = 4 * width
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)),
    ).eval()


def _torch_arguments(batch: int, size: int) -> tuple[Any, Any, Any]:
    """The network, the layer to explain, and images."""
    import torch

    network = _torch_network()
    return network, network[4][-1], torch.randn(batch, 3, size, size)


def pytorch_grad_cam(batch: int, size: int) -> Callable[[], Any]:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, layer, images = _torch_arguments(batch, size)
    cam = GradCAM(model=network, target_layers=[layer])
    return lambda: cam(images, targets=[ClassifierOutputTarget(0)] * batch)


def torchcam(batch: int, size: int) -> Callable[[], Any]:
    from torchcam.methods import GradCAM

    network, layer, images = _torch_arguments(batch, size)

    def run() -> Any:
        with GradCAM(network, target_layer=layer) as cam:
            return cam([0] * batch, network(images))

    return run


def captum(batch: int, size: int) -> Callable[[], Any]:
    from captum.attr import LayerGradCam

    network, layer, images = _torch_arguments(batch, size)
    cam = LayerGradCam(network, layer)
    return lambda: cam.attribute(images, target=0).detach().numpy()


PEERS: dict[str, Peer] = {
    "captum": captum,
    "pytorch-grad-cam": pytorch_grad_cam,
    "tf-explain": tf_explain,
    "tf-keras-vis": tf_keras_vis,
    "torchcam": torchcam,
    "xplique": xplique,
}
