"""Compares the AP of runs on the same images, with paired bootstrap intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from kgradcam.errors import UserError
from kgradcam.evaluation.box_tables import boxes_of_run
from kgradcam.evaluation.grid import evaluate_boxes, measure_classes
from kgradcam.evaluation.results import Result
from kgradcam.evaluation.rows import DIFFERENCE, MIN_IMAGES, Row
from kgradcam.metrics.bootstrap import draw_samples, interval
from kgradcam.metrics.protocol import Protocol
from kgradcam.runs.run import Run


def compare_runs(
    runs: Sequence[Run],
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    thresholds: Sequence[float] | None = None,
    radii: Sequence[int] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Result:
    """Compares the AP of runs on the same images with that of the first.

    All runs are measured on the same bootstrap samples (paired), so the intervals of the
    differences are narrower than those of the runs.

    Args:
        runs: Two or more.
        iou_thresholds: Intersections over union from which a box counts as correct.
        protocol: The rules of matching and of AP.
        thresholds: Heat thresholds in [0, 1]; each run takes its best of several. Default: the
            run's own.
        radii: Smoothing radii in pixels; each run takes its best of several. Default: its own.
        samples: The number of bootstrap samples.
        seed: The random seed of the samples.

    Returns:
        Rows with the measures `ap` and `difference` (from the first run; NaN for the first) for
        each class, run and IoU. The interval of `difference` holds 95 % of the samples. The
        count `images` is the number of images that show an object of the class.

    Raises:
        UserError: The runs have different images or classes.
    """
    for run in runs[1:]:
        _check_alike(runs[0], run)
    drawn = draw_samples(len(runs[0].ground_truth.images), samples, seed)
    found = []
    for run in runs:
        boxes = boxes_of_run(run, thresholds, radii)
        best = evaluate_boxes(boxes, iou_thresholds, protocol).best
        # Columns of samples follow the names of images, which have other ids in other runs.
        images = sorted(boxes.ground_truth.images, key=lambda image: image.file_name)
        measured = measure_classes(
            boxes.ground_truth,
            boxes.tables[best],
            iou_thresholds,
            protocol,
            [image.id for image in images],
            drawn,
        )
        found.append((run, best, {(each.class_name, each.iou): each for each in measured}))
    of_first = found[0][2]
    rows = []
    for class_name in dict.fromkeys(name for name, _ in of_first):
        for place, (run, (_, radius, threshold), measured_here) in enumerate(found):
            for iou in iou_thresholds:
                this, first = measured_here[class_name, iou], of_first[class_name, iou]
                difference, limits = math.nan, None
                if place:
                    difference = this.values["ap"] - first.values["ap"]
                    limits = interval(this.samples["ap"] - first.samples["ap"])
                row = Row(
                    class_name,
                    {"ap": this.values["ap"], DIFFERENCE: difference},
                    {"images": len(this.images)},
                    {DIFFERENCE: limits},
                    run=str(run.folder),
                    radius=radius,
                    threshold=threshold,
                    iou=iou,
                )
                rows.append(row)
    title = (
        f"Protocol {protocol.name}, percent; differences from the first run with 95 % intervals of "
        f"{samples} paired bootstrap samples; * excludes 0, on {MIN_IMAGES} images or more"
    )
    source = {"bootstrap": samples, "seed": seed}
    return Result(title, asdict(protocol), tuple(rows), source)


def _check_alike(one: Run, other: Run) -> None:
    for what, of_one, of_other in (
        ("images", _image_names(one), _image_names(other)),
        ("classes", set(one.ground_truth.categories), set(other.ground_truth.categories)),
    ):
        if of_one != of_other:
            odd = min(of_one ^ of_other)
            raise UserError(
                f"Compared runs must have the same {what}. Received: {one.folder} with "
                f"{len(of_one)} and {other.folder} with {len(of_other)}; {odd} is in one only."
            )


def _image_names(run: Run) -> set[str]:
    return {image.file_name for image in run.ground_truth.images}
