"""What heatmaps cost, beside the compiled forward pass of the same model and beside other packages.

    pip install -r benchmarks/requirements-peers.txt
    python benchmarks/throughput.py [--quick] [--peers keras torch] [--out FOLDER]

Every contender takes a batch of one size in turn, after a warm-up in which weights are frozen; the
order is drawn anew in each round. Medians and quartiles. What freezing costs is not in them, but a
line of its own. A package that is missing or fails is a row that says why. PyTorch's packages
explain a ResNet50 written here; all weights are random. `--quick` is one setting without peers,
three rounds, in under two minutes.
"""

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kgradcam import freezing
from kgradcam.gradcam import GradCAM
from kgradcam.models import load_classifier

GIGA_OPERATIONS = {"resnet50": 7.73}
"""Of one image of 224 x 224, two for each multiplication and addition."""


def peak(dtype: tf.DType, size: int = 4096) -> float:
    """The best of several matrix products, in GFLOP/s."""
    one = tf.cast(tf.random.normal((size, size)), dtype)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        _ = tf.cast(tf.matmul(one, one)[0, 0], tf.float32).numpy()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


def processor() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def ours(model: str, batch: int, size: int, quick: bool) -> dict[str, Callable[[], Any]]:
    classifier = load_classifier(model, weights=None, image_size=size)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)])
    def forward(inputs: tf.Tensor) -> tf.Tensor:
        return classifier.model(classifier.preprocess(inputs), training=False)

    contenders = {"forward pass": lambda: forward(tf.cast(images, tf.float32)).numpy()}
    options: dict[str, dict[str, Any]] = {
        "float32, live": {"freeze": False},
        "float32, frozen": {"freeze": True},
    }
    if (reduced := freezing.choose_precision("auto")) != "float32":
        options[f"{reduced}, frozen"] = {"precision": reduced}
    if not quick:
        options["float32, XLA"] = {"freeze": False, "jit_compile": True}
    for name, chosen in options.items():
        cam = GradCAM(classifier.model, preprocess=classifier.preprocess, **chosen)
        start = time.perf_counter()
        cam(images, classes=[0])
        first = time.perf_counter() - start
        print(f"first call, {name}: {first:.1f} s", file=sys.stderr)
        if cam._compiled.freeze_count != ("frozen" in name):
            raise RuntimeError(f"{name}: {cam._compiled.obstacle}")
        for count in (1, 20):
            contenders[f"kgradcam, {name}, {count} class{'es' * (count > 1)}"] = (
                lambda cam=cam, count=count: cam(images, classes=list(range(count)))
            )
    return contenders


def keras_peers(batch: int, size: int) -> dict[str, Callable[[], Any]]:
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    linear = keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    images = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)
    layer = "conv5_block3_out"

    def tf_keras_vis() -> Any:
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.utils.scores import CategoricalScore

        cam = Gradcam(linear, clone=False)
        return lambda: cam(CategoricalScore([0] * batch), images, penultimate_layer=layer)

    def tf_explain() -> Any:
        from tf_explain.core.grad_cam import GradCAM as TheirGradCAM

        cam = TheirGradCAM()
        return lambda: cam.get_gradients_and_filters(model, images, layer, 0, True)

    def xplique() -> Any:
        from xplique.attributions import GradCAM as TheirGradCAM

        cam = TheirGradCAM(linear, batch_size=batch, conv_layer=layer)
        targets = np.eye(1000, dtype=np.float32)[[0] * batch]
        return lambda: cam(images, targets)

    return {"tf-keras-vis": tf_keras_vis, "tf-explain": tf_explain, "xplique": xplique}


def torch_peers(batch: int, size: int) -> dict[str, Callable[[], Any]]:
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
    network = nn.Sequential(
        *(nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        *(nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)),
    ).eval()
    images = torch.randn(batch, 3, size, size)
    layer, classes = network[4][-1], [0] * batch

    def pytorch_grad_cam() -> Any:
        from pytorch_grad_cam import GradCAM as TheirGradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = TheirGradCAM(model=network, target_layers=[layer])
        return lambda: cam(images, targets=[ClassifierOutputTarget(0)] * batch)

    def torchcam() -> Any:
        from torchcam.methods import GradCAM as TheirGradCAM

        def run() -> Any:
            with TheirGradCAM(network, target_layer=layer) as cam:
                return cam(classes, network(images))

        return run

    def captum() -> Any:
        from captum.attr import LayerGradCam

        cam = LayerGradCam(network, layer)
        return lambda: cam.attribute(images, target=0).detach().numpy()

    return {"pytorch-grad-cam": pytorch_grad_cam, "torchcam": torchcam, "captum": captum}


FAMILIES = {"keras": keras_peers, "torch": torch_peers}


def add_peers(
    contenders: dict[str, Any], names: list[str], batch: int, size: int
) -> dict[str, str]:
    """Adds each package that runs, and returns why the others do not."""
    failed = {}
    for family in names:
        try:
            peers = FAMILIES[family](batch, size)
        except ImportError as error:
            failed[f"peers of {family}"] = str(error)
            continue
        for name, make in peers.items():
            try:
                run = make()
                run()
                contenders[name] = run
            except Exception as error:  # whatever another package does is a row of the table
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return failed


def measure(contenders: dict[str, Callable[[], Any]], batch: int, rounds: int) -> dict[str, Any]:
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    generator = np.random.default_rng(0)
    for _ in range(rounds):
        for name in generator.permutation(list(contenders)):
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: [float(each) for each in 1000 * np.percentile(values, [25, 50, 75]) / batch]
        for name, values in seconds.items()
    }


def markdown(title: str, rows: dict[str, Any], failed: dict[str, str], peaks: Any) -> str:
    lines = [f"## {title}\n", "| | ms per image | quartiles | of the forward pass | of peak |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    work = GIGA_OPERATIONS.get(title.split(",")[0], 0) * (int(title.split()[1]) / 224) ** 2
    for name, (low, middle, high) in rows.items():
        reached = peaks["bfloat16" if "float16" in name else "float32"]
        share = f"{work / middle * 1000 / reached:.0%}" if work else ""
        ratio = middle / rows["forward pass"][1]
        lines.append(f"| {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {ratio:.2f} | {share} |")
    lines += [f"| {name} | fails: {why} | | | |" for name, why in failed.items()]
    return "\n".join(lines) + "\n"


def draw(path: Path, tables: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tables), figsize=(7 * len(tables), 4), squeeze=False)
    for axis, (title, rows) in zip(axes[0], tables.items(), strict=True):
        names = list(rows)[::-1]
        axis.barh(names, [rows[name][1] for name in names], color="#4c78a8")
        axis.set(title=title, xlabel="ms per image")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one setting, under two minutes")
    parser.add_argument("--peers", nargs="*", choices=FAMILIES, help="default: all, none if quick")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    peers = options.peers
    if peers is None:
        peers = [] if options.quick else list(FAMILIES)
    settings = [("resnet50", 224, 16)]
    if not options.quick:
        settings += [("resnet50", 224, 1), ("resnet50", 448, 4), ("efficientnet-lite0", 224, 16)]
    peaks = {"float32": peak(tf.float32), "bfloat16": peak(tf.bfloat16)}
    tables, failures, text = {}, {}, []
    for model, size, batch in settings:
        title = f"{model}, {size} px, batch {batch}"
        contenders = ours(model, batch, size, options.quick)
        failed = add_peers(contenders, peers, batch, size) if model == "resnet50" else {}
        rows = measure(contenders, batch, 3 if options.quick else 9)
        tables[title], failures[title] = rows, failed
        text.append(markdown(title, rows, failed, peaks))
        print(text[-1], flush=True)
        del contenders
        keras.backend.clear_session()
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load when it ended": round(os.getloadavg()[0], 1),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "devices": [each.name for each in tf.config.list_physical_devices()],
        "peak GFLOP/s": {name: round(value) for name, value in peaks.items()},
        "peak memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    text.insert(0, "\n".join(f"* {name}: {value}" for name, value in machine.items()) + "\n")
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "tables": tables, "failed": failures}
    (options.out / "throughput.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.out / "throughput.md").write_text("\n".join(text))
    draw(options.out / "throughput.png", tables)


if __name__ == "__main__":
    main()
