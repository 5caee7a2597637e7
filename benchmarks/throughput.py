"""What heatmaps cost, beside the compiled forward pass of the same model and beside other packages.

    pip install -r benchmarks/requirements-peers.txt
    python benchmarks/throughput.py [--quick] [--axes NAME ...] [--peers NAME ...] [--out FOLDER]

One thing changes at a time, from ResNet50 at 224 px in batches of 16, frozen, one class. Every
contender takes a batch in turn, after a warm-up in which weights are frozen; the order is drawn
anew in each round. Medians and quartiles. What freezing costs is not in them, but told on stderr. A
package that is missing or fails is a row that says why. All weights are random. `--quick` is the
centre, three rounds, in under two minutes.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from peers import PEERS
from report import RESULTS, draw, quartiles, save, spread

from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.models.classifier import Classifier, load_classifier

REDUCED = choose_precision("auto")
LIVE, FROZEN, XLA = "float32, live", "float32, frozen", "float32, XLA"
LOWERED = f"{REDUCED}, frozen"
# Options of GradCAM, and the precision that it is frozen in.
MODES: dict[str, tuple[dict[str, Any], str | None]] = {
    LIVE: ({}, None),
    FROZEN: ({}, "float32"),
    XLA: ({"jit_compile": True}, None),
}
if REDUCED != "float32":
    MODES[LOWERED] = ({}, REDUCED)


@dataclass(frozen=True)
class Setting:
    """What is explained, and how; the defaults are the centre."""

    model: str = "resnet50"
    size: int = 224
    batch: int = 16
    classes: tuple[int, ...] = (1,)
    modes: tuple[str, ...] = (FROZEN, LOWERED)

    @property
    def title(self) -> str:
        return f"{self.model}, {self.size} px, batch {self.batch}"


AXES = {
    "centre": [Setting(classes=(1, 20), modes=(LIVE, FROZEN, LOWERED))],
    "batch": [Setting(batch=1), Setting(batch=64)],
    "size": [Setting(size=448)],
    "model": [Setting(model="efficientnet-lite0"), Setting(model="mobilenet")],
    "compile": [Setting(modes=(LIVE, FROZEN, XLA))],
    "peers": [Setting()],
}


def peak(precision: str, size: int = 4096) -> float:
    """The best of several matrix products, in GFLOP/s."""
    one = tf.cast(tf.random.normal((size, size)), precision)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        _ = tf.cast(tf.matmul(one, one)[0, 0], tf.float32).numpy()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


def giga_operations(forward: Any, size: int) -> float:
    """Of the forward pass of one image, two for each multiplication and addition."""
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    graph = forward.get_concrete_function(tf.TensorSpec([1, size, size, 3], tf.float32)).graph
    options = options.with_empty_output().build()
    return profiler.profile(graph, options=options).total_float_ops / 1e9


def compiled_forward(classifier: Classifier) -> Any:
    return tf.function(
        lambda inputs: classifier.model(classifier.preprocess(inputs), training=False),
        autograph=False,
    )


def ours(classifier: Classifier, setting: Setting) -> dict[str, Callable[[], Any]]:
    shape = (setting.batch, setting.size, setting.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    forward = compiled_forward(classifier)
    contenders = {"forward pass": lambda: forward(tf.cast(images, tf.float32)).numpy()}
    for mode in setting.modes:
        if mode not in MODES:  # this machine has no reduced precision
            continue
        mode_options, precision = MODES[mode]
        start = time.perf_counter()
        cam: Any = GradCAM(classifier.model, preprocess=classifier.preprocess, **mode_options)
        if precision is not None:
            cam = cam.freeze(precision)
        cam(images, classes=[0])
        print(f"first call, {mode}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
        for count in setting.classes:
            contenders[f"kgradcam, {mode}, {count} class{'es' * (count > 1)}"] = (
                lambda cam=cam, count=count: cam(images, classes=list(range(count)))
            )
    return contenders


def add_peers(
    contenders: dict[str, Any], names: Sequence[str], batch: int, size: int
) -> dict[str, str]:
    """Adds each package that runs, and returns why the others do not."""
    failed = {}
    for name in names:
        try:
            run = PEERS[name](batch, size)
            run()
            contenders[name] = run
        except Exception as error:  # whatever another package does is a row of the table
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return failed


def measure(
    contenders: dict[str, Callable[[], Any]], batch: int, rounds: int
) -> dict[str, list[float]]:
    """The quartiles of each contender, in ms an image."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    generator = np.random.default_rng(0)
    for _ in range(rounds):
        for name in generator.permutation(list(contenders)):
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(1000 * (time.perf_counter() - start) / batch)
    return {name: quartiles(values) for name, values in seconds.items()}


HEADER = ["", "ms per image", "quartiles", "of the forward pass", "of peak"]


def lines(
    rows: dict[str, list[float]], failed: dict[str, str], work: float, peaks: dict[str, float]
) -> list[list[str]]:
    """Lines of a table; `work` is in GFLOP an image, `peaks` in GFLOP/s by precision."""
    found = []
    for name, (low, middle, high) in rows.items():
        reached = peaks[REDUCED if REDUCED in name else "float32"]
        ratio, share = middle / rows["forward pass"][1], work / middle * 1000 / reached
        found.append([name, f"{middle:.1f}", spread(low, high), f"{ratio:.2f}", f"{share:.0%}"])
    return found + [[f"{name} fails: {why}", "", "", "", ""] for name, why in failed.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the centre, under two minutes")
    parser.add_argument("--axes", nargs="*", choices=AXES, default=[])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    axes = options.axes or (["centre"] if options.quick else list(AXES))
    rounds = options.rounds or (3 if options.quick else 9)
    peaks = {precision: peak(precision) for precision in dict.fromkeys(["float32", REDUCED])}
    results, tables = {}, {}
    for axis in axes:
        for setting in AXES[axis]:
            title = f"{axis}: {setting.title}"
            classifier = load_classifier(setting.model, weights=None, image_size=setting.size)
            work = giga_operations(compiled_forward(classifier), setting.size)
            contenders = ours(classifier, setting)
            failed = {}
            if axis == "peers":
                failed = add_peers(contenders, options.peers, setting.batch, setting.size)
            rows = measure(contenders, setting.batch, rounds)
            results[title] = {"rows": rows, "failed": failed, "GFLOP per image": work}
            tables[title] = (HEADER, lines(rows, failed, work, peaks))
            print(f"{title}: done", file=sys.stderr)
            del contenders
            keras.backend.clear_session()
    roofline = {f"{name} matrix products": f"{value:.0f} GFLOP/s" for name, value in peaks.items()}
    tables["Roofline: the peak of this machine"] = (["", "peak"], [*map(list, roofline.items())])
    content = {
        "peak GFLOP/s": peaks,
        "devices": [each.name for each in tf.config.list_physical_devices()],
        "peak memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "settings": results,
    }
    save(options.out, "throughput", content, tables)
    bars = {
        title: {name: middle for name, (_, middle, _) in found["rows"].items()}
        for title, found in results.items()
    }
    draw(options.out / "throughput.png", bars, "ms per image")


if __name__ == "__main__":
    main()
