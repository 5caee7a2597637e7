"""Compares a policy with random actions, no action, and the actions of a greedy expert.

    python benchmarks/policies.py RUN REFINER.json OUT

All start at the same boxes, and the same score ranks their ends. The refiner comes from
`kgradcam train-refiner --rung imitation` or `dqn`, on other images. OUT gets a table, the learning
curves, and episodes as strips: in the first half the best box moves nearer to an object, in the
second half away from it.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kgradcam.boxes.expected_iou import expected_iou
from kgradcam.boxes.levels import level_canvas
from kgradcam.boxes.overlap import Boxes, box_iou
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.protocol import find_protocol
from kgradcam.pictures.drawing import GROUND_TRUTH_COLOR, PREDICTION_COLOR
from kgradcam.refine import Candidates, Refiner, load_refiner
from kgradcam.refine.environment import ACTIONS, STOP, expert, ious_after
from kgradcam.refine.policy import STEPS, Choose, follow
from kgradcam.refine.refiner import open_network
from kgradcam.refine.scene import Scene
from kgradcam.refine.search import search
from kgradcam.runs.run import Run
from kgradcam.runs.run_dataset import open_run_dataset
from kgradcam.runs.tables import Detections, RowsByClass, join, sizes_by_id

IOUS = (0.3, 0.5, 0.7)
STRIPS, WIDTH = 8, 150


@dataclass
class Start:
    """The candidates of a heatmap, where episodes start, and the objects of its class."""

    image_id: int
    category_id: int
    scene: Scene
    candidates: Candidates
    objects: Boxes

    def targets(self) -> Boxes:
        if not len(self.objects):
            return np.zeros_like(self.candidates.boxes)
        nearest = box_iou(self.candidates.boxes, self.objects).argmax(axis=1)
        return self.objects[nearest]


def starts(run: Run, refiner: Refiner) -> Iterator[Start]:
    truth = run.ground_truth
    sizes, rows_of = sizes_by_id(truth.images), RowsByClass(truth)
    maps = dict(open_network(run).maps(sizes.keys()))
    for record in run.heatmaps():
        size, network = sizes[record.image_id], refiner.network
        reduced = network(maps[record.image_id])
        scene = Scene(
            level_canvas(record.heatmap, size)[0], size, record.probability, network, reduced
        )
        objects = truth.boxes[rows_of(record.image_id, record.category_id)]
        yield Start(record.image_id, record.category_id, scene, scene.candidates(), objects)


def of_expert(start: Start) -> Choose:
    """The greedy actions: the rows that still run are those of the boxes not yet stopped."""
    targets, running = start.targets(), np.arange(len(start.candidates.boxes))

    def choose(seen: Candidates, history: Any) -> Any:
        nonlocal running
        sizes = np.tile(np.asarray(start.scene.size, np.float64), (len(running), 1))
        actions = expert(*ious_after(seen.boxes, sizes, targets[running]))
        running = running[actions != STOP]
        return actions

    return choose


@dataclass
class Fixed:
    """Stands where a refiner has a policy; keeps the number of moves."""

    choose: Choose
    moves: list[int]

    def __call__(self, scene: Scene, candidates: Candidates) -> Candidates:
        episodes = follow(self.choose, scene, candidates.boxes)
        self.moves += episodes.steps.tolist()
        return replace(scene.describe(episodes.boxes), scores=candidates.scores)


def row(run: Run, refiner: Refiner, all_starts: list[Start], make: Any) -> dict[str, Any]:
    """AP of each class, the mean number of moves, and the processor time of a heatmap."""
    tables, moves, before = [], [], time.process_time()
    for start in all_starts:
        moving = replace(refiner, policy=Fixed(make(start), moves))
        boxes, scores = moving(start.candidates, start.scene.size, start.scene)
        ids = np.ones(len(boxes), np.int64)
        tables.append(Detections(start.image_id * ids, start.category_id * ids, boxes, scores))
    spent = 1000 * (time.process_time() - before) / len(all_starts)
    results = evaluate(run.ground_truth, join(tables), find_protocol("voc2010"), IOUS)
    found = {(each.class_name, each.iou): 100 * each.ap for each in results}
    return {"ap": found, "moves": np.mean(moves), "ms": spent}


def default_scores(start: Start, ends: Candidates) -> Any:
    """The scores of `find_candidates`, for boxes that are no candidates."""
    scene = start.scene
    limits = np.array(scene.canvas.shape[::-1])
    small = ends.boxes * np.tile(limits / scene.size, 2)
    low = np.clip(small[:, :2].round(), 0, limits - 1)
    high = np.clip(small[:, 2:].round(), low + 1, limits)
    pixels = np.concatenate([low, high], axis=1)
    return scene.probability**0.1 * expected_iou(scene.canvas, pixels)


def print_table(rows: dict[str, dict[str, Any]], classes: list[str], out: Path) -> None:
    lines = [
        f"| policy | IoU | {' | '.join(classes)} | mean | moves | ms |",
        "| --- |" + " ---: |" * (len(classes) + 4),
    ]
    for iou in IOUS:
        for label, each in rows.items():
            values = [each["ap"][name, iou] for name in classes]
            numbers = [f"{value:.1f}" for value in (*values, np.mean(values))]
            numbers += [f"{each['moves']:.1f}", f"{each['ms']:.1f}"]
            lines.append(f"| {label} | {iou} | {' | '.join(numbers)} |")
    (out / "policies.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def trace(start: Start, refiner: Refiner) -> tuple[list[Boxes], list[str]]:
    """Where the best of the candidates goes: its boxes and its actions."""
    inputs = replace(refiner, policy=None, offset=None)
    best, _ = inputs(start.candidates, start.scene.size)
    boxes, actions = [best[:1]], []

    def choose(seen: Candidates, history: Any) -> Any:
        chosen = refiner.policy.choose(seen, history)
        actions.append(ACTIONS[chosen[0]])
        return chosen

    for steps in range(1, STEPS + 1):
        actions.clear()
        episodes = follow(choose, start.scene, best[:1], steps)
        if not episodes.running[0]:
            break
        boxes.append(episodes.boxes)
    return boxes, actions


def strip(image: Any, start: Start, boxes: list[Boxes], actions: list[str]) -> Any:
    """The box after each action, beside one another: the object in blue, the box in pink."""
    colors = [
        tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))
        for code in (GROUND_TRUTH_COLOR, PREDICTION_COLOR)
    ]
    scale = WIDTH / image.shape[1]
    height = round(image.shape[0] * scale)
    small = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
    row = np.full((WIDTH + 20, (WIDTH + 4) * (STEPS + 1), 3), 255, np.uint8)
    for i, box in enumerate(boxes):
        picture = small.copy()
        for color, every in zip(colors, (start.objects, box), strict=True):
            for xmin, ymin, xmax, ymax in (every * scale).round().astype(int).tolist():
                cv2.rectangle(picture, (xmin, ymin), (xmax - 1, ymax - 1), color, 2)
        picture = picture[:WIDTH]
        left = i * (WIDTH + 4)
        row[20 : 20 + len(picture), left : left + WIDTH] = picture
        iou = box_iou(box, start.objects).max()
        label = f"{actions[i - 1] if i else 'start'} {iou:.2f}"
        cv2.putText(
            row, label, (left, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA
        )
    return row


def draw_strips(run: Run, refiner: Refiner, all_starts: list[Start], out: Path) -> None:
    """The episodes that gain most IoU and those that lose most, every fourth of them."""
    found = []
    for start in all_starts:
        if len(start.candidates.boxes) and len(start.objects):
            boxes, actions = trace(start, refiner)
            first, last = (box_iou(each, start.objects).max() for each in (boxes[0], boxes[-1]))
            if first > 0.2 and len(boxes) > 1:
                found.append((last - first, start, boxes, actions))
    found.sort(key=lambda each: -each[0])
    gains = [each[0] for each in found]
    print(f"{len(found)} best boxes move: {np.mean(np.array(gains) > 0):.2f} of them nearer.")
    shown = [*found[: 4 * STRIPS : 4], *found[-4 * STRIPS :: 4]]
    names = {image.id: image.file_name for image in run.ground_truth.images}
    dataset = open_run_dataset(run)
    images = {example.file_name: example for example in dataset.examples}
    strips = []
    for _, start, boxes, actions in shown:
        example = images[names[start.image_id]]
        (batch,) = dataset.batches([example], 1, start.scene.size)
        strips.append(strip(np.asarray(batch.images[0]), start, boxes, actions))
    cv2.imwrite(str(out / "episodes.png"), np.concatenate(strips)[..., ::-1])


def draw_curve(refiner: Refiner, out: Path) -> None:
    import matplotlib.pyplot as plt

    curve = refiner.policy.curve
    figure, panels = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axes, names in zip(panels, (["loss"], ["iou_before", "iou_after"], ["moves"]), strict=True):
        for name in names:
            axes.plot([each[name] for each in curve], marker=".", label=name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.legend()
    figure.savefig(out / "curve.png", dpi=100)
    (out / "curve.json").write_text(json.dumps(list(curve), indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("refiner", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--drawings-only", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    run, refiner = Run(arguments.run), load_refiner(arguments.refiner)
    all_starts = list(starts(run, refiner))
    draw_curve(refiner, arguments.out)
    draw_strips(run, refiner, all_starts, arguments.out)
    if arguments.drawings_only:
        return
    generator = np.random.default_rng(0)
    policies = {
        "stop at once": lambda start: lambda seen, _: np.full(len(seen.boxes), STOP),
        "random": lambda start: (
            lambda seen, _: generator.integers(0, len(ACTIONS), len(seen.boxes))
        ),
        "the refiner's": lambda start: refiner.policy.choose,
        "expert": of_expert,
    }
    rows = {label: row(run, refiner, all_starts, make) for label, make in policies.items()}
    found, before = [], time.process_time()
    for start in all_starts:
        ends = start.scene.describe(search(refiner.policy.choose, start.scene))
        found.append(replace(start, candidates=replace(ends, scores=default_scores(start, ends))))
    spent = 1000 * (time.process_time() - before) / len(found)
    whole = row(run, refiner, found, policies["stop at once"])
    rows["the refiner's, from the whole image"] = {**whole, "ms": whole["ms"] + spent}
    print_table(rows, list(run.ground_truth.categories), arguments.out)


if __name__ == "__main__":
    main()
