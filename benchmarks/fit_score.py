"""Fits the constants of `score="expected-iou"` to the annotated boxes of runs.

    python benchmarks/fit_score.py RUN...

The constants in `kgradcam/boxes/expected_iou.py` come from five runs of

    kgradcam detect --dataset VOC2012 --split tune --class CLASS --model efficientnet-lite0

one for each of dog, cat, horse, sheep and cow. `tune.txt` lists the 524 photographs of animals in
VOC2012 train that `results/voc2012-check.txt` does not. The table has the AP of each class by
constants from the other classes: the score learns about boxes, and not about these animals.
"""

import argparse
from pathlib import Path

import numpy as np

from kgradcam.boxes.expected_iou import describe
from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.levels import boxes_at_levels, level_canvas, suppress
from kgradcam.boxes.options import DEFAULT_THRESHOLDS, BoxOptions
from kgradcam.boxes.overlap import box_iou
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, join

PENALTY = 0.01
OPTIONS = BoxOptions()


def collect(run: Run) -> list[dict]:
    """The candidates of each heatmap of a run: their numbers, and their IoU with an object."""
    truth = run.ground_truth
    sizes = {image.id: (image.width, image.height) for image in truth.images}
    found = []
    for record in run.heatmaps():
        size = sizes[record.image_id]
        canvas, scale = level_canvas(record.heatmap, size)
        boxes, _ = boxes_at_levels(canvas, DEFAULT_THRESHOLDS["levels"])
        same = (truth.image_ids == record.image_id) & (truth.category_ids == record.category_id)
        ious = box_iou(boxes * scale, truth.boxes[same]).max(axis=1, initial=0)
        numbers = describe(canvas, boxes)
        density = find_boxes(
            record.heatmap, size, record.probability, options=BoxOptions(score="density")
        )
        found.append(
            {
                "record": record,
                "boxes": boxes,
                "scale": scale,
                "numbers": numbers,
                "ious": ious,
                "density": density,
            }
        )
    return found


def fit(heatmaps: list[dict]) -> np.ndarray:
    """Ridge regression of IoU on the standardized numbers: bias and weights of the numbers."""
    numbers = np.concatenate([each["numbers"] for each in heatmaps])
    ious = np.concatenate([each["ious"] for each in heatmaps])
    mean, deviation = numbers.mean(axis=0), numbers.std(axis=0)
    inputs = (numbers - mean) / deviation
    left = inputs.T @ inputs + PENALTY * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(left, inputs.T @ (ious - ious.mean())) / deviation
    return np.concatenate([[ious.mean() - mean @ weights], weights])


def average_precision(run: Run, heatmaps: list[dict], constants: np.ndarray | None) -> list[str]:
    """The AP at IoU .5 and .7 by the constants, or by the score `"density"`."""
    tables = []
    for each in heatmaps:
        record = each["record"]
        if constants is None:
            boxes, scores = each["density"]
        else:
            expected = np.clip(constants[0] + each["numbers"] @ constants[1:], 0, 1)
            scores = record.probability**0.1 * expected
            kept = suppress(np.arange(len(scores)), each["boxes"], scores, None, OPTIONS)
            boxes, scores = each["boxes"][kept] * each["scale"], scores[kept]
        ids = np.ones(len(boxes), np.int64)
        tables.append(Detections(record.image_id * ids, record.category_id * ids, boxes, scores))
    results = evaluate(run.ground_truth, join(tables), find_protocol("voc2010"), [0.5, 0.7])
    return [f"{100 * result.ap:.1f}" for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    runs = [Run(path) for path in parser.parse_args().runs]
    parts = [collect(run) for run in runs]
    print("| class | density, at .7 | never seen, at .7 |\n| --- | --- | --- |")
    for i, (run, part) in enumerate(zip(runs, parts, strict=True)):
        others = fit([each for j, one in enumerate(parts) if j != i for each in one])
        cells = [", ".join(average_precision(run, part, way)) for way in (None, others)]
        print(f"| {run.ground_truth.categories[0]} | {' | '.join(cells)} |")
    everything = [each for part in parts for each in part]
    constants = fit(everything)
    print(f"{len(everything)} heatmaps, {sum(len(each['ious']) for each in everything)} candidates")
    print("BIAS =", float(f"{constants[0]:.3g}"))
    print("WEIGHTS =", tuple(float(f"{each:.3g}") for each in constants[1:]))


if __name__ == "__main__":
    main()
