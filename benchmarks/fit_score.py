"""Fits the constants of `score="expected-iou"` to the annotated boxes of runs: moves and ranks.

    python benchmarks/fit_score.py RUN...

The constants in `kgradcam/boxes/moves.py` and `expected_iou.py` come from five runs of

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
from kgradcam.boxes.levels import boxes_at_levels, compete, level_canvas
from kgradcam.boxes.moves import LARGEST_MOVE, OUTWARDS, describe_sides
from kgradcam.boxes.options import DEFAULT_THRESHOLDS, BoxOptions
from kgradcam.boxes.overlap import box_iou
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, RowsByClass, join, sizes_by_id

PENALTY = 0.01
NEAR = 0.35  # the IoU from which a candidate belongs to an object
STEP = 0.5
OPTIONS = BoxOptions()


def collect(run: Run) -> list[dict]:
    """The candidates of each heatmap of a run: their numbers, and their IoU with an object."""
    truth = run.ground_truth
    sizes, rows_of = sizes_by_id(truth.images), RowsByClass(truth)
    found = []
    for record in run.heatmaps():
        size = sizes[record.image_id]
        canvas, scale = level_canvas(record.heatmap, size)
        boxes, _ = boxes_at_levels(canvas, DEFAULT_THRESHOLDS["levels"])
        if not len(boxes):
            continue
        objects = truth.boxes[rows_of(record.image_id, record.category_id)] / scale
        overlaps = box_iou(boxes, objects)
        nearest = objects[overlaps.argmax(axis=1)] if len(objects) else boxes
        limits = np.tile(canvas.shape[::-1], 2)
        outwards = (nearest - boxes) * OUTWARDS / np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        density = find_boxes(
            record.heatmap, size, record.probability, options=BoxOptions(score="density")
        )
        found.append(
            {
                "record": record,
                "boxes": boxes,
                "scale": scale,
                "limits": limits,
                "at_border": boxes == [0, 0, *limits[2:]],
                "objects": objects,
                "near": overlaps.max(axis=1, initial=0) >= NEAR,
                "outwards": np.clip(outwards, -0.45, 0.5),
                "sides": describe_sides(canvas, boxes),
                "numbers": describe(canvas, boxes),
                "density": density,
            }
        )
    return found


def ridge(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ridge regression on standardized inputs: the bias and weights of the raw inputs."""
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    inputs = (inputs - mean) / deviation
    left = inputs.T @ inputs + PENALTY * len(inputs) * np.eye(inputs.shape[1])
    weights = np.linalg.solve(left, inputs.T @ (targets - targets.mean())) / deviation
    return np.concatenate([[targets.mean() - mean @ weights], weights])


def moved(each: dict, moves: np.ndarray) -> np.ndarray:
    """The candidates of a heatmap with their sides moved, as `move_sides` does."""
    step = np.clip(moves[0] + each["sides"] @ moves[1:], -LARGEST_MOVE, LARGEST_MOVE)
    boxes = each["boxes"]
    step = step * np.tile(boxes[:, 2:] - boxes[:, :2], 2) * OUTWARDS
    return np.clip(boxes + step * ~each["at_border"], 0, each["limits"])


def fit(heatmaps: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """The constants of the moves, and those of the IoU of the moved boxes."""
    free = [each["near"][:, np.newaxis] & ~each["at_border"] for each in heatmaps]
    sides, outwards = (
        np.concatenate([each[name][rows] for each, rows in zip(heatmaps, free, strict=True)])
        for name in ("sides", "outwards")
    )
    moves = STEP * ridge(sides, outwards)
    ious = [
        box_iou(moved(each, moves), each["objects"]).max(axis=1, initial=0) for each in heatmaps
    ]
    numbers = np.concatenate([each["numbers"] for each in heatmaps])
    return moves, ridge(numbers, np.concatenate(ious))


def average_precision(run: Run, heatmaps: list[dict], constants: tuple | None) -> list[str]:
    """The AP at IoU .5 and .7 by the constants, or by the score `"density"`."""
    tables = []
    for each in heatmaps:
        record = each["record"]
        boxes, scores = each["density"]
        if constants is not None:
            moves, weights = constants
            expected = np.clip(weights[0] + each["numbers"] @ weights[1:], 0, 1)
            scores = record.probability**0.1 * expected
            boxes, scores = compete(moved(each, moves), scores, OPTIONS)
            boxes = boxes * each["scale"]
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
    print(
        f"{len(everything)} heatmaps, {sum(len(each['boxes']) for each in everything)} candidates"
    )
    for name, (bias, *weights) in zip(("MOVE_", ""), fit(everything), strict=True):
        print(f"{name}BIAS =", float(f"{bias:.3g}"))
        print(f"{name}WEIGHTS =", tuple(float(f"{each:.3g}") for each in weights))


if __name__ == "__main__":
    main()
