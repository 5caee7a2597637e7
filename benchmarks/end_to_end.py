"""What `detect` makes of a folder in a second, beside the bare loop of its heatmaps.

    python benchmarks/end_to_end.py [--quick] [--settings NAME ...] [--photographs FOLDER]

The loop calls the explainer of the run on the same batches, decoded before. The two take turns. Of
either the first batch does not count, in which TensorFlow traces and weights are frozen: `detect`
is timed from the end of its first batch until it returns, the last boxes and files included; what
came before is "start". Weights are random, and frozen in float32 too, as in a run of 1,000 images
or more. The stages are timed alone, each with all cores: their sum is what no overlap would take.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from photographs import CLASS, VOC_SIZE, make_folder, voc_sizes
from report import RESULTS, draw, quartiles, save, spread

from kgradcam.data.sources import open_dataset
from kgradcam.heatmaps.precision import choose_precision
from kgradcam.models.imagenet import VOC_GROUPS
from kgradcam.runs import detection, finished_parts, run_writer
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.explaining import load_model, make_explainer
from kgradcam.runs.run import Run

_DEFAULT = Configuration(model="efficientnet-lite0", weights=None, classes=(CLASS,))
_PLAIN = replace(_DEFAULT, score_scales=(), refine=False)
SETTINGS = {
    "resnet50-224": replace(_PLAIN, model="resnet50", image_size=224),
    "resnet50-default": replace(_DEFAULT, model="resnet50"),
    "default": _DEFAULT,
    "fast": replace(_DEFAULT, image_size=416, score_scales=()),
    "plain-448": _PLAIN,
    "plain-native": replace(_PLAIN, image_size=None),
}
"""EfficientNet-Lite0 but for the first two; the plain ones have one scale and no refinement."""


@dataclass
class Watch:
    """Takes the place of progress bars, and notes when batches of heatmaps end."""

    ends: list[tuple[float, int]] = field(default_factory=list)

    @contextmanager
    def bar(self, description: str, *_: Any, **__: Any) -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            if description == "heatmaps":
                self.ends.append((time.perf_counter(), count))

        yield advance

    def per_image(self, end: float) -> float:
        """Seconds for each image after the first batch."""
        return (end - self.ends[0][0]) / sum(count for _, count in self.ends[1:])


def time_loop(cam: Any, batches: list[Any]) -> float:
    """Seconds an image, from the second batch on."""
    classes = [[VOC_GROUPS[CLASS]]]
    cam(batches[0].images, classes_per_image=classes * len(batches[0].images))
    start = time.perf_counter()
    for batch in batches[1:]:
        cam(batch.images, classes_per_image=classes * len(batch.images))
    return (time.perf_counter() - start) / sum(len(batch.images) for batch in batches[1:])


def time_detect(configuration: Configuration, out: Path) -> tuple[float, float, int]:
    """Seconds an image, seconds until the first batch was done, and how many traces it took."""
    watch, explainers = Watch(), []

    def explainer(*arguments: Any) -> Any:
        explainers.append(make_explainer(*arguments))
        return explainers[-1]

    with (
        patch("kgradcam.progress.bar", watch.bar),
        patch.object(detection, "make_explainer", explainer),
        patch.object(detection, "FREEZE_FROM", 0),
    ):
        start = time.perf_counter()
        detect(configuration, out, force=True)
        end = time.perf_counter()
    (cam,) = explainers
    traces = cam.trace_count
    return watch.per_image(end), watch.ends[0][0] - start, traces


def time_stages(configuration: Configuration, run: Run, out: Path) -> dict[str, float]:
    """Seconds an image for decoding, boxes and files, each alone."""
    dataset = open_dataset(configuration.dataset)
    count = len(dataset.examples)
    start = time.perf_counter()
    for _ in dataset.batches(dataset.examples, configuration.batch_size, configuration.image_size):
        pass
    decoded = time.perf_counter() - start

    images = {image.id: image for image in run.ground_truth.images}
    records = list(run.heatmaps())
    parts = [records[i : i + run_writer.PART] for i in range(0, count, run_writer.PART)]
    start = time.perf_counter()
    radius = [run.options.smooth_radius]
    drawn = iter(
        [draw_boxes(part, images.values(), run.thresholds, radius, run.options) for part in parts]
    )
    boxed = time.perf_counter() - start

    with patch.object(finished_parts, "draw_boxes", lambda *_: next(drawn)):
        start = time.perf_counter()
        with run_writer.write_run(out) as writer:
            writer.begin(run.info)
            for part in parts:
                writer.add([images[record.image_id] for record in part], part, {})
            writer.finish(run.info, run.ground_truth)
        written = time.perf_counter() - start
    return {"decode": decoded / count, "boxes": boxed / count, "write": written / count}


def measure(configuration: Configuration, folder: Path, rounds: int) -> dict[str, Any]:
    dataset = open_dataset(configuration.dataset)
    batches = list(
        dataset.batches(dataset.examples, configuration.batch_size, configuration.image_size)
    )
    cam = make_explainer(configuration, load_model(configuration), True)
    time_loop(cam, batches[:2])
    out = folder / "run"
    loops, runs = [], []
    for _ in range(rounds):
        loops.append(time_loop(cam, batches))
        runs.append(time_detect(configuration, out))
        print(f"loop {loops[-1]:.4f} s an image, detect {runs[-1]}", file=sys.stderr)
    stages = time_stages(configuration, Run(out), folder / "written")
    loop = quartiles([1000 * each for each in loops])
    whole = quartiles([1000 * seconds for seconds, _, _ in runs])
    return {
        "images": len(dataset.examples),
        "shapes": len({batch.images.shape[1:3] for batch in batches}),
        "start": quartiles([start for _, start, _ in runs])[1],
        "stages": {name: 1000 * seconds for name, seconds in stages.items()},
        "heatmaps": loop,
        "detect": whole,
        "ratio": loop[1] / whole[1],
        "traces": max(traces for *_, traces in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one setting, fewer images, one round")
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=[])
    parser.add_argument("--precisions", nargs="*", choices=("float32", "auto"), default=[])
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--photographs", type=Path, help="a folder of JPEG files to use instead")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    names = options.settings or (["resnet50-224"] if options.quick else list(SETTINGS))
    count = options.images or (128 if options.quick else 512)
    rounds = options.rounds or (1 if options.quick else 3)
    asked = options.precisions or ["float32", "auto"]
    precisions = list(dict.fromkeys(choose_precision(each) for each in asked))
    results = {}
    for name in names:
        for precision in precisions:
            with tempfile.TemporaryDirectory() as scratch:
                sizes = voc_sizes() if SETTINGS[name].image_size is None else [VOC_SIZE]
                data = make_folder(Path(scratch) / "voc", count, sizes, options.photographs)
                configuration = replace(SETTINGS[name], dataset=str(data), precision=precision)
                found = measure(configuration, Path(scratch), rounds)
            results[f"{name}, {precision}"] = found
    header = ["ms per image", "decode", "heatmaps", "boxes", "write", "sum", "detect"]
    header += ["quartiles", "loop / detect", "start, s", "shapes", "traces"]
    lines = []
    for title, found in results.items():
        stages, loop = found["stages"], found["heatmaps"][1]
        parts = [stages["decode"], loop, stages["boxes"], stages["write"]]
        low, middle, high = found["detect"]
        lines.append(
            [title]
            + [f"{each:.1f}" for each in (*parts, sum(parts), middle)]
            + [spread(low, high), f"{found['ratio']:.2f}", f"{found['start']:.1f}"]
            + [str(found["shapes"]), str(found["traces"])]
        )
    title = f"detect, {count} images, {rounds} rounds"
    save(options.out, "end_to_end", {"settings": results}, {title: (header, lines)})
    bars = {
        title: {"heatmaps": found["heatmaps"][1], "detect": found["detect"][1]}
        for title, found in results.items()
    }
    draw(options.out / "end_to_end.png", bars, "ms per image")


if __name__ == "__main__":
    main()
