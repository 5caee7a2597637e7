"""What heatmaps cost over the bare forward pass: ResNet50, one class and twenty.

    python benchmarks/overhead.py

The forward pass is compiled like the heatmaps, and takes the same uint8 pictures through the same
preprocessing. The three take turns, after a warm-up; medians and quartiles of the repeats.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from kgradcam.gradcam import GradCAM
from kgradcam.models import load_classifier


def measure(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each call, the contenders taking turns."""
    for run in contenders.values():
        run()
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()

    # The cost does not depend on what the weights are.
    classifier = load_classifier(options.model, weights=None, image_size=options.size)
    cam = GradCAM(classifier.model, preprocess=classifier.preprocess)
    generator = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size, 3)
    images = generator.integers(0, 256, shape, dtype=np.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None, *shape[1:]], tf.float32)])
    def forward(batch: tf.Tensor) -> tf.Tensor:
        return classifier.model(classifier.preprocess(batch), training=False)

    seconds = measure(
        {
            "forward pass": lambda: forward(tf.cast(images, tf.float32)).numpy(),
            "heatmaps, 1 class": lambda: cam(images, classes=[0]),
            "heatmaps, 20 classes": lambda: cam(images, classes=list(range(20))),
        },
        options.repeats,
    )
    devices = [device.device_type for device in tf.config.list_physical_devices()]
    print(
        f"{options.model}, {options.size} px, batch {options.batch}, float32, {options.repeats} "
        f"repeats; TensorFlow {tf.__version__}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{'/'.join(devices)}\n"
    )
    print("| | ms per image | quartiles | ratio |\n| --- | ---: | ---: | ---: |")
    baseline = np.median(seconds["forward pass"])
    for name, values in seconds.items():
        low, middle, high = 1000 * np.percentile(values, [25, 50, 75]) / options.batch
        ratio = np.median(values) / baseline
        print(f"| {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
