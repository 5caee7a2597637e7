"""How long a grid of box options takes: 60 thresholds x 5 radii x 7 IoU over 433 images.

    python benchmarks/grid.py [--images 433]

A run is made of random heatmaps of VOC's native size, 16 x 12 for 500 x 375 pixels, with one or two
smooth peaks each; then `evaluate_run` is timed, reading the heatmaps included. Boxes of a real run
are fewer at high thresholds and more at low ones, the work for each is the same.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from report import RESULTS, save

from kgradcam.boxes.options import DEFAULT_OPTIONS
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import Counts, DatasetInfo, ModelInfo, RunInfo
from kgradcam.runs.run_writer import write_run
from kgradcam.runs.tables import GroundTruth, Image

THRESHOLDS = [i / 100 for i in range(1, 61)]
RADII = [0, 5, 10, 20, 40]
IOUS = [0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7]


def random_run(folder: Path, images: int) -> Run:
    generator = np.random.default_rng(0)
    ids = np.arange(1, images + 1)
    low = generator.uniform(0, 0.5, (images, 2))
    high = low + generator.uniform(0.2, 0.5, (images, 2))
    boxes = np.concatenate([low, high], axis=1) * np.array([500, 375, 500, 375])
    truth = GroundTruth(
        tuple(Image(int(i), f"{i:06}.jpg", 500, 375) for i in ids),
        ("dog",),
        ids,
        np.ones(images, np.int64),
        np.round(boxes),
        np.zeros(images, bool),
    )
    with write_run(folder) as writer:
        info = RunInfo(
            Configuration(boxes=DEFAULT_OPTIONS["single-threshold"]),
            DatasetInfo("random", "all", images, "", ""),
            ModelInfo("none", None, 0, "", "", {"dog": (0,)}),
            versions={},
            determinism="",
            counts=Counts(images, images, images),
        )
        writer.begin(info)
        for image in truth.images:
            noise = generator.uniform(0, 1, (12, 16)).astype(np.float32) ** 4
            heatmap = cv2.GaussianBlur(noise, (0, 0), 1.5)
            heatmap = np.maximum(heatmap - heatmap.mean(), 0)
            writer.add([image], [ClassHeatmap(image.id, 1, heatmap, 1.0, 0.5)], {})
        return writer.finish(info, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=433)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        run = random_run(Path(folder) / "run", images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        result = evaluate_run(run, THRESHOLDS, IOUS, find_protocol("voc2010"), radii=RADII)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    boxes = sum(row.counts["detections"] for row in result.rows) // len(IOUS)
    line = [str(images), str(len(result.rows)), f"{boxes:,}", f"{seconds:.1f}", f"{peak:.0f} MB"]
    header = ["images", "measurements", "boxes", "seconds", "peak"]
    content = {"seconds": seconds, "peak MB": peak, "MB before": before}
    save(RESULTS, "grid", content, {"Grid of options, single threshold": (header, [line])})


if __name__ == "__main__":
    main()
