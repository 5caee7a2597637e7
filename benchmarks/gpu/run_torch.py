"""Times the forward pass, torchcam and pytorch-grad-cam on torchvision's ResNet50.

    python benchmarks/gpu/run_torch.py [--batches 64 256] [--precisions float32 float16]

Eager and by `torch.compile`, channels last, images and weights on the device. Prints JSON lines as
`run_xla.py` does; a contender that fails has the reason in place of the time.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch._functorch.config
import torchvision
from pytorch_grad_cam import GradCAM as JacobGil
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam.methods import GradCAM as TorchCam


def make_contenders(network: Any, images: Any) -> dict[str, Callable[[], Any]]:
    """Functions that explain class 0 of each image, as the users of each package call it."""
    batch, layer = len(images), network.layer4[-1]
    targets = [ClassifierOutputTarget(0)] * batch
    jacob_gil = JacobGil(model=network, target_layers=[layer])

    def forward() -> Any:
        with torch.no_grad():
            return network(images)

    def torchcam() -> Any:
        with TorchCam(network, target_layer=layer) as cam:
            return cam([0] * batch, network(images))

    return {
        "forward": forward,
        "torchcam": torchcam,
        "pytorch-grad-cam": lambda: jacob_gil(images, targets=targets),
    }


def time_in_turns(
    contenders: dict[str, Callable[[], Any]], device: str, rounds: int
) -> dict[str, float | str]:
    """The median of each in ms, or the reason why it fails."""

    def run(contender: Callable[[], Any]) -> float:
        start = time.perf_counter()
        contender()
        if device == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start)

    found: dict[str, Any] = {}
    for name, contender in contenders.items():
        try:
            for _ in range(2):  # compiles, and chooses kernels
                run(contender)
            found[name] = []
        except Exception as error:  # another package's failure is a row of the table
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
    generator = np.random.default_rng(0)
    for _ in range(rounds):
        for name in generator.permutation([n for n, v in found.items() if isinstance(v, list)]):
            found[name].append(run(contenders[name]))
    return {n: v if isinstance(v, str) else float(np.median(v)) for n, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--precisions", nargs="+", default=["float32", "float16"])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    # pytorch-grad-cam keeps the graph of its gradients, which this permits in compiled networks.
    torch._functorch.config.donated_buffer = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({"device": kind, "torch": torch.__version__}))
    for batch in options.batches:
        shape = (batch, 3, options.size, options.size)
        images = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
        for precision in options.precisions:
            for mode in ("eager", "compile"):
                network = torchvision.models.resnet50().to(device).eval()
                network = network.to(memory_format=torch.channels_last)
                if mode == "compile":
                    network.compile()
                lowered = precision != "float32"
                dtype = getattr(torch, precision) if lowered else None
                with torch.autocast(device, dtype=dtype, enabled=lowered):
                    found = time_in_turns(make_contenders(network, images), device, options.rounds)
                for name, value in found.items():
                    row = {"name": f"{name}, {mode}", "precision": precision, "batch": batch}
                    key = "error" if isinstance(value, str) else "ms"
                    print(json.dumps(row | {key: value}), flush=True)


if __name__ == "__main__":
    main()
