"""Time and memory of the commands that read a run, for runs of up to 5 million boxes.

    python benchmarks/large_runs.py [--boxes 50000,500000,5000000] [--commands evaluate,tune]

A run has a picture and a heatmap for every five boxes; its files are written here in their own
format, without a model. The pictures are links to one photograph. Each command is a process of its
own; its peak is the most that was resident, and its time holds the start of Python, and of
TensorFlow where it reads pictures. `tune` has 4 options, `--images none` writes no pictures.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from memory import PROGRAM
from report import RESULTS, save

from kgradcam.files import write_atomically
from kgradcam.runs.coco_files import write_detections, write_ground_truth
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.heatmap_files import ClassHeatmap, pack_heatmaps
from kgradcam.runs.run import detections_name
from kgradcam.runs.run_info import Counts, DatasetInfo, ModelInfo, RunInfo
from kgradcam.runs.tables import Detections, GroundTruth, Image, join
from kgradcam.runs.whole_run import digests

WIDTH, HEIGHT, CELLS = 500, 375, (12, 16)
CLASSES = ("cat", "dog", "horse")
BOXES = 5  # of a heatmap
PART = 256
COMMANDS = {
    "evaluate": ["--json"],
    "evaluate --out": ["--out", "OUT", "--json"],
    "evaluate --bootstrap 100": ["--bootstrap", "100", "--json"],
    "tune": ["--thresholds", "0.3,0.35", "--radii", "0,20", "--out", "OUT.json"],
    "check": ["--json"],
    "wsol": ["--json"],
    "report": ["--out", "OUT.html"],
    "visualize": ["--out", "OUT.png"],
    **{
        f"export --format {name}": ["--format", name, "--images", "none", "--out", "OUT"]
        for name in ("coco", "label-studio", "cvat", "csv", "yolo")
    },
}
"""Commands and their further options; OUT is a new path."""


def write_large_run(folder: Path, boxes: int) -> None:
    """Writes a run with so many boxes and a fifth as many pictures and heatmaps."""
    generator = np.random.default_rng(0)
    count = boxes // BOXES
    (folder / "run/heatmaps").mkdir(parents=True)
    run = folder / "run"
    names = _link_pictures(folder / "pictures", count)
    truth = _truth(names, generator)
    write_ground_truth(run / "ground_truth.json", truth)
    configuration = Configuration(str(folder / "pictures"))
    (threshold,) = configuration.thresholds
    write_detections(run / detections_name(threshold), _found(truth, generator))
    for i, part in enumerate(_heatmaps(truth, generator)):
        (run / f"heatmaps/{i:05}.npz").write_bytes(pack_heatmaps(part))
    info = RunInfo(
        configuration,
        DatasetInfo(str(folder / "pictures"), "all", count, "", "", folder="../pictures"),
        ModelInfo("none", None, 0, "", "", {name: (i,) for i, name in enumerate(CLASSES)}),
        versions={},
        determinism="",
        counts=Counts(count, count, len(truth.boxes)),
    )
    write_atomically(run / "run.json", replace(info, files=digests(run)).to_text())


def _link_pictures(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    photograph = folder.parent / "photograph.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 25, WIDTH // 25, 3), np.uint8)
    PIL.Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(photograph)
    names = [f"{i // 1000:04}/{i:07}.jpg" for i in range(count)]
    for name in names:
        path = folder / name
        if name.endswith("000.jpg"):
            path.parent.mkdir()
        path.symlink_to(photograph)
    return names


def _truth(names: list[str], generator: np.random.Generator) -> GroundTruth:
    """One to three objects of one class in each picture."""
    ids = np.arange(1, len(names) + 1)
    objects = generator.integers(1, 4, len(ids))
    low = generator.uniform(0, 0.5, (objects.sum(), 2))
    high = low + generator.uniform(0.1, 0.5, low.shape)
    return GroundTruth(
        tuple(Image(i, name, WIDTH, HEIGHT) for i, name in enumerate(names, start=1)),
        CLASSES,
        np.repeat(ids, objects),
        np.repeat(generator.integers(1, len(CLASSES) + 1, len(ids)), objects),
        np.round(np.concatenate([low, high], axis=1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]),
        generator.uniform(size=len(low)) < 0.05,
    )


def _found(truth: GroundTruth, generator: np.random.Generator) -> Detections:
    """Five boxes in each picture: its objects, moved by some pixels, again and again."""
    ids, firsts, counts = np.unique(truth.image_ids, return_index=True, return_counts=True)
    rows = (firsts[:, np.newaxis] + np.arange(BOXES) % counts[:, np.newaxis]).ravel()
    moved = truth.boxes[rows] + generator.normal(0, 20, (len(rows), 4))
    boxes = np.clip(np.round(moved), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    scores = generator.uniform(size=len(rows))
    return join([Detections(np.repeat(ids, BOXES), truth.category_ids[rows], boxes, scores)])


def _heatmaps(truth: GroundTruth, generator: np.random.Generator) -> Iterator[list[ClassHeatmap]]:
    """One heatmap for each picture, hot around its first object."""
    ids, firsts = np.unique(truth.image_ids, return_index=True)
    ys, xs = np.mgrid[0.5 : CELLS[0], 0.5 : CELLS[1]]
    cell = np.array([WIDTH / CELLS[1], HEIGHT / CELLS[0]] * 2)
    for start in range(0, len(ids), PART):
        part = []
        for image_id, row in zip(ids[start:], firsts[start : start + PART], strict=False):
            xmin, ymin, xmax, ymax = truth.boxes[row] / cell
            distance = ((2 * xs - xmin - xmax) / (xmax - xmin)) ** 2
            distance += ((2 * ys - ymin - ymax) / (ymax - ymin)) ** 2
            noise = generator.uniform(0.8, 1, CELLS)
            heatmap = (noise * np.exp(-distance)).astype(np.float32)
            category_id = int(truth.category_ids[row])
            part.append(ClassHeatmap(int(image_id), category_id, heatmap, 1.0, 0.5))
        yield part


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Runs a command on a run; returns its seconds, its peak in MB, and the size of its output."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch) / "out"
        options = [each.replace("OUT", str(out)) for each in COMMANDS[name]]
        command = [name.partition(" ")[0], str(folder / "run"), *options, "--quiet"]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = subprocess.run(
            [sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        written = sum(each.stat().st_size for each in Path(scratch).rglob("*") if each.is_file())
    found = {"command": name, "seconds": round(seconds, 1), "cpu": round(work, 1)}
    if finished.returncode:
        return {**found, "error": f"exit {finished.returncode}: {finished.stderr.strip()[:200]}"}
    peak = int(finished.stderr.rpartition("VmHWM:")[2].split()[0]) / 1024
    size = (written + len(finished.stdout)) / 2**20
    return {**found, "peak": round(peak), "output": round(size, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", default="50000,500000,5000000")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--folder", type=Path, help="keeps the runs here, and takes those it has")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    measured, lines = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for boxes in map(int, options.boxes.split(",")):
            folder = (options.folder or Path(scratch)) / str(boxes)
            if not folder.exists():
                start = time.perf_counter()
                write_large_run(folder, boxes)
                print(f"{boxes:,} boxes written in {time.perf_counter() - start:.0f} s")
            for name in options.commands.split(","):
                each = {"boxes": boxes, **measure(name, folder)}
                print(json.dumps(each), flush=True)
                measured.append(each)
    for each in measured:
        peak = f"{each['peak']:,.0f} MB" if "peak" in each else each["error"]
        size = f"{each.get('output', 0):,.1f} MB"
        times = f"{each['seconds']:.1f}", f"{each['cpu']:.1f}"
        lines.append([f"{each['boxes']:,}", each["command"], *times, peak, size])
    header = ["boxes", "command", "seconds", "CPU seconds", "peak", "output"]
    save(options.out, "large_runs", {"measured": measured}, {"Large runs": (header, lines)})


if __name__ == "__main__":
    main()
