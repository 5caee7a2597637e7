"""How much memory commands take, for ten times the images, and `detect` for a large photograph.

    python benchmarks/memory.py [--quick] [--images 300] [--out FOLDER]

Each run is a process of its own, and its peak the most that was resident. Weights are random,
heatmaps in float32, boxes drawn, a run written. The weights of MobileNet are frozen in both of its
runs, which by itself `detect` does from 1,000 images on. Other commands take these runs and their
photographs; those that only measure take runs of random heatmaps.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest.mock import patch

from grid import random_run
from photographs import CLASS, VOC_SIZE, make_folder
from report import RESULTS, draw, save

LARGE = (4000, 3000)


def peak_of_detect(options: dict[str, Any], folder: Path) -> float:
    """Runs `detect` in this process, to `run` in the folder, and returns its peak in MB."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kgradcam.runs import detection
    from kgradcam.runs.configuration import Configuration
    from kgradcam.runs.detection import detect

    with patch.object(detection, "FREEZE_FROM", 2):
        configuration = Configuration(
            dataset=str(folder), classes=(CLASS,), weights=None, **options
        )
        detect(configuration, folder / "run", force=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def measure(options: dict[str, Any], folder: Path) -> float | str:
    """The peak of a process of its own, or why there is none."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(peak_of_detect, options, folder).result()
        except BrokenProcessPool:
            return "killed"
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0][:160]


MEASURES = {
    "evaluate": "evaluate {run} --bootstrap 200",
    "tune": "tune {run} --thresholds 0.05,0.1,0.2 --radii 0,20 --out {out}.json",
    "coco": "coco {run}",
    "wsol": "wsol {run}",
}
"""Command lines that measure a run of random heatmaps."""

COMMANDS = {
    "check": "check {run}",
    "visualize": "visualize {run} --out {out}.png",
    "report": "report {run} --out {out}.html",
    "export": "export {run} --format coco --out {out}-labels",
    "train-refiner": "train-refiner {run} --out {out}-refiner.json",
    "train": "train --dataset {folder} --model efficientnet-lite0 --image-size 96 --head-epochs 1 "
    "--epochs 1 --out {out}-model",
}
"""Command lines on a run of `detect` and its photographs; `train` on the photographs alone."""


PROGRAM = """
import atexit, sys
from pathlib import Path
from kgradcam.cli import main
# Not `ru_maxrss`, which starts with the memory of the process that this one was started by.
atexit.register(lambda: print(Path("/proc/self/status").read_text(), file=sys.stderr))
main()
"""


def peak_of_command(line: str, run: Path, folder: Path) -> float:
    """Runs a command line, and returns the peak of its process in MB; on Linux."""
    words = line.format(run=run, folder=folder, out=folder.with_name(f"{folder.name}-out")).split()
    command = [sys.executable, "-c", PROGRAM, *words, "--quiet"]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{line} failed: {finished.stderr[-2000:]}")
    return int(finished.stderr.rpartition("VmHWM:")[2].split()[0]) / 1024


def growth_of(lines: dict[str, str], runs: list[Path], folders: list[Path]) -> list[list[str]]:
    """A row for each command: its peaks with some and with ten times the images, and the growth."""
    rows = []
    for name, line in lines.items():
        some, many = (
            peak_of_command(line, run, folder) for run, folder in zip(runs, folders, strict=True)
        )
        rows.append([name, f"{some:,.0f} MB", f"{many:,.0f} MB", f"{many / some - 1:+.1%}"])
        print(*rows[-1], file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--images", type=int, help="of the smaller folder; default: 300")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    count = options.images or (30 if options.quick else 300)
    small = {"model": "mobilenet", "image_size": 224, "score_scales": (), "refine": False}
    peaks: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        some = make_folder(Path(scratch) / "some", count, [VOC_SIZE])
        pictures = some / "JPEGImages"
        many = make_folder(Path(scratch) / "many", 10 * count, [VOC_SIZE], pictures)
        large = make_folder(Path(scratch) / "large", 1, [LARGE])
        runs = {
            f"mobilenet, 224 px, {count} images": (small, some),
            f"mobilenet, 224 px, {10 * count} images": (small, many),
            "resnet50, default, 12 megapixels": ({}, large),
            "resnet50, native size, 12 megapixels": ({"image_size": None}, large),
        }
        for name, (chosen, folder) in runs.items():
            peaks[name] = measure(chosen, folder)
            print(f"{name}: {peaks[name]}", file=sys.stderr)
        commands = growth_of(COMMANDS, [some / "run", many / "run"], [some, many])
    one, ten = list(peaks.values())[:2]
    growth = ten / one - 1 if isinstance(one, float) and isinstance(ten, float) else None
    lines = [
        [name, f"{peak:,.0f} MB" if isinstance(peak, float) else peak]
        for name, peak in peaks.items()
    ]
    if growth is not None:
        lines.append(["growth with ten times the images", f"{growth:+.1%}"])
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / "some", Path(scratch) / "many"]
        for folder, images in zip(folders, (100, 1000), strict=True):
            random_run(folder, images)
        measures = growth_of(MEASURES, folders, folders)
    tables = {
        "Memory of detect": (["", "peak"], lines),
        "Memory of commands": (["", f"{count} images", f"{10 * count} images", "growth"], commands),
        "Memory of measures": (["", "100 images", "1,000 images", "growth"], measures),
    }
    found = {"peaks": peaks, "growth": growth, "commands": commands, "measures": measures}
    save(options.out, "memory", found, tables)
    known = {name: peak for name, peak in peaks.items() if isinstance(peak, float)}
    draw(options.out / "memory.png", {"memory of detect": known}, "MB")


if __name__ == "__main__":
    main()
