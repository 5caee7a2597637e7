"""What boxes cost a picture, from the pixels to the scores, by the rules of 2021 and by ours.

    python benchmarks/localization.py

Pictures of 500 x 375, decoded already; resizing, heatmaps and boxes are timed. The ways take turns,
after a warm-up; medians and quartiles of the repeats.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import PIL.Image
from report import RESULTS, quartiles, save, spread

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.options import DEFAULT_OPTIONS, DEFAULT_THRESHOLDS
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.models.classifier import Classifier, load_classifier
from kgradcam.models.imagenet import VOC_GROUPS

# Rules, image size, score scales, refinement.
WAYS = {
    "single threshold": ("single-threshold", None, (), False),
    "levels": ("levels", 448, (), False),
    "fast": ("levels", 416, (), True),
    "levels, refined": ("levels", 448, (), True),
    "default": ("levels", 448, (0.5,), True),
}


def make_way(
    classifier: Classifier, rules: str, size: int | None, scored: tuple[float, ...], refine: bool
) -> Callable[[list[PIL.Image.Image]], dict[str, float]]:
    """Returns a function that localizes dogs on pictures and tells the seconds of its stages."""
    cam = GradCAM(
        classifier.model, preprocess=classifier.preprocess, score_scales=scored, refine=refine
    )

    def localize(pictures: list[PIL.Image.Image]) -> dict[str, float]:
        start = time.perf_counter()
        resized = [each if size is None else each.resize((size, size)) for each in pictures]
        images = np.stack([np.asarray(each) for each in resized])
        explained = time.perf_counter()
        explanation = cam(images, classes=[VOC_GROUPS["dog"]])
        boxed = time.perf_counter()
        for i, picture in enumerate(pictures):
            find_boxes(
                explanation.heatmaps[i, 0],
                picture.size,
                float(explanation.probabilities[i, 0]),
                DEFAULT_THRESHOLDS[rules][-1],
                DEFAULT_OPTIONS[rules],
            )
        end = time.perf_counter()
        return {
            "resize": explained - start,
            "heatmaps": boxed - explained,
            "boxes": end - boxed,
            "all": end - start,
        }

    return localize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    from skimage import data

    cat = PIL.Image.fromarray(data.chelsea()).resize((500, 375))
    pictures = [cat.rotate(angle, PIL.Image.Resampling.BILINEAR) for angle in range(options.batch)]
    classifier = load_classifier("efficientnet-lite0")
    ways = {name: make_way(classifier, *way) for name, way in WAYS.items()}
    for localize in ways.values():
        localize(pictures)
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, localize in ways.items():
            seconds[name].append(localize(pictures))
    baseline = np.median([each["all"] for each in seconds["single threshold"]])
    lines = []
    for name, rows in seconds.items():
        stages = {
            stage: quartiles([1000 * each[stage] / options.batch for each in rows])
            for stage in ("resize", "heatmaps", "boxes", "all")
        }
        low, middle, high = stages["all"]
        ratio = middle * options.batch / 1000 / baseline
        cells = [f"{value:.1f}" for _, value, _ in stages.values()]
        lines.append([name, *cells, spread(low, high), f"{ratio:.2f}"])
    header = ["", "resize", "heatmaps", "boxes", "ms a picture", "quartiles", "ratio"]
    title = f"Boxes, EfficientNet-Lite0, batch {options.batch}, {options.repeats} repeats"
    save(RESULTS, "localization", {"seconds": seconds}, {title: (header, lines)})


if __name__ == "__main__":
    main()
