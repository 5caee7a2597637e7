"""What an exported explainer costs beside the classifier alone, and beside the live explainer.

    python benchmarks/serving.py [--calls 15]

All contenders take turns on the same pictures of random numbers. Weights are random. `explain` is
for 3 classes with boxes; "live" and "frozen" are `GradCAM` with `find_boxes` for as many classes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from report import RESULTS, quartiles, save, spread

from kgradcam import GradCAM, export_model, find_boxes
from kgradcam.models.classifier import load_classifier

SIZE = 224
CLASSES = [281, 207, 340]


def explain_live(cam: GradCAM, pictures: np.ndarray) -> None:
    found = cam(pictures, CLASSES)
    for heatmaps, probabilities in zip(found.heatmaps, found.probabilities, strict=True):
        for heatmap, probability in zip(heatmaps, probabilities, strict=True):
            find_boxes(heatmap, (SIZE, SIZE), float(probability))


def contenders(model: keras.Model, preprocess: Any, folder: Path, batch: int) -> dict[str, Any]:
    """A call for each contender."""
    cam = GradCAM(model, preprocess=preprocess)
    if not (folder / "explainer").exists():
        export_model(cam, folder / "explainer", size=SIZE)
        model.export(folder / "classifier", verbose=False)
    # A signature alone would not keep the weights alive.
    exported = tf.saved_model.load(folder / "explainer")
    classifier = tf.saved_model.load(folder / "classifier")
    pictures = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)
    images = tf.constant(pictures)
    files = tf.stack([tf.io.encode_jpeg(picture) for picture in pictures])
    floats = preprocess(tf.cast(images, tf.float32))
    frozen = cam.freeze()
    return {
        "classifier": lambda: classifier.serve(floats).numpy(),
        "predict": lambda: exported.signatures["predict"](images=images)["scores"].numpy(),
        "explain": lambda: exported.signatures["explain"](images=images)["boxes"].numpy(),
        "explain_bytes": lambda: exported.signatures["explain_bytes"](image_bytes=files)[
            "boxes"
        ].numpy(),
        "live": lambda: explain_live(cam, pictures),
        "frozen": lambda: explain_live(frozen, pictures),
    }


def measure(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call of each contender, without the first two."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 1:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=15)
    rounds = parser.parse_args().calls
    header = ["network and batch", "contender", "ms", "quartiles", "of the classifier"]
    lines, rows = [], []
    for name in ("efficientnet-lite0", "resnet50"):
        with tempfile.TemporaryDirectory() as folder:
            classifier = load_classifier(name, weights=None)
            for batch in (1, 16):
                calls = contenders(classifier.model, classifier.preprocess, Path(folder), batch)
                times = measure(calls, rounds)
                base = quartiles(times["classifier"])[1]
                for contender, values in times.items():
                    low, median, high = quartiles(values)
                    title = f"{name}, {batch}"
                    rows.append({"setting": title, "contender": contender, "ms": median})
                    shown = [f"{median:.1f}", spread(low, high), f"{median / base:.2f}"]
                    lines.append([title, contender, *shown])
    save(RESULTS, "serving", {"rows": rows}, {"An exported explainer": (header, lines)})


if __name__ == "__main__":
    main()
