"""How much memory commands take, for ten times the images, and `detect` for a large photograph.

    python benchmarks/memory.py [--quick] [--images 300] [--out FOLDER]

Each run is a process of its own, and its peak the most that was resident. Weights are random,
heatmaps in float32, boxes drawn, a run written. The weights of MobileNet are frozen in both of its
runs, which by itself `detect` does from 1,000 images on.
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
    """Runs `detect` in this process, and returns its peak in MB."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kgradcam.runs import detection
    from kgradcam.runs.configuration import Configuration
    from kgradcam.runs.detection import detect

    with tempfile.TemporaryDirectory() as out, patch.object(detection, "FREEZE_FROM", 2):
        configuration = Configuration(
            dataset=str(folder), classes=(CLASS,), weights=None, **options
        )
        detect(configuration, Path(out) / "run")
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


COMMANDS = {
    "evaluate": ["--bootstrap", "200"],
    "tune": ["--thresholds", "0.05,0.1,0.2", "--radii", "0,20", "--out", "OUT"],
    "coco": [],
    "wsol": [],
}
"""Commands that measure a run, and their options."""


PROGRAM = """
import atexit, sys
from pathlib import Path
from kgradcam.cli import main
# Not `ru_maxrss`, which starts with the memory of the process that this one was started by.
atexit.register(lambda: print(Path("/proc/self/status").read_text(), file=sys.stderr))
main()
"""


def peak_of_command(name: str, run: Path) -> float:
    """Runs a command on a run, and returns the peak of its process in MB; on Linux."""
    options = [str(run.with_name(f"{run.name}.json")) if x == "OUT" else x for x in COMMANDS[name]]
    command = [sys.executable, "-c", PROGRAM, name, str(run), *options, "--quiet"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(finished.stderr.rpartition("VmHWM:")[2].split()[0]) / 1024


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
    one, ten = list(peaks.values())[:2]
    growth = ten / one - 1 if isinstance(one, float) and isinstance(ten, float) else None
    lines = [
        [name, f"{peak:,.0f} MB" if isinstance(peak, float) else peak]
        for name, peak in peaks.items()
    ]
    if growth is not None:
        lines.append(["growth with ten times the images", f"{growth:+.1%}"])
    commands = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / "some", Path(scratch) / "many"]
        for folder, images in zip(folders, (100, 1000), strict=True):
            random_run(folder, images)
        for name in COMMANDS:
            some_images, many_images = (peak_of_command(name, folder) for folder in folders)
            cells = (f"{some_images:,.0f} MB", f"{many_images:,.0f} MB")
            commands.append([name, *cells, f"{many_images / some_images - 1:+.1%}"])
    tables = {
        "Memory of detect": (["", "peak"], lines),
        "Memory of measures": (["", "100 images", "1,000 images", "growth"], commands),
    }
    save(options.out, "memory", {"peaks": peaks, "growth": growth, "commands": commands}, tables)
    known = {name: peak for name, peak in peaks.items() if isinstance(peak, float)}
    draw(options.out / "memory.png", {"memory of detect": known}, "MB")


if __name__ == "__main__":
    main()
