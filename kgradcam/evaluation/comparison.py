"""Compares the AP of runs on the same images, with paired bootstrap intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.evaluation.results import DIFFERENCE, MEAN, Result, Row, best_option
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.bootstrap import draw_samples, evaluate_samples, interval, mean_over_classes
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
        each class, run and IoU. The interval of `difference` holds 95 % of the samples.

    Raises:
        UserError: The runs have different images or classes.
    """
    for run in runs[1:]:
        _check_alike(runs[0], run)
    drawn = draw_samples(len(runs[0].ground_truth.images), samples, seed)
    found = []
    for run in runs:
        grid = evaluate_run(run, thresholds, iou_thresholds, protocol, radii=radii)
        _, radius, threshold = best_option(grid.rows)
        assert radius is not None
        assert threshold is not None
        values = _values(run, radius, threshold, iou_thresholds, protocol, drawn)
        found.append((run, radius, threshold, values))
    _, _, _, of_first = found[0]
    names = [*runs[0].ground_truth.categories, MEAN]
    rows = []
    for (class_name, iou), (first_ap, first_samples) in of_first.items():
        for place, (run, radius, threshold, values) in enumerate(found):
            ap, of_samples = values[class_name, iou]
            row = Row(
                class_name,
                {"ap": ap, DIFFERENCE: ap - first_ap if place else math.nan},
                intervals={DIFFERENCE: interval(of_samples - first_samples) if place else None},
                run=str(run.folder),
                radius=radius,
                threshold=threshold,
                iou=iou,
            )
            rows.append((names.index(class_name), place, row))
    rows.sort(key=lambda each: each[:2])
    title = (
        f"Protocol {protocol.name}, percent; differences from the first run with 95 % intervals of "
        f"{samples} paired bootstrap samples, * where they exclude 0"
    )
    source = {"bootstrap": samples, "seed": seed}
    return Result(title, asdict(protocol), tuple(row for _, _, row in rows), source)


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


def _values(
    run: Run,
    radius: int,
    threshold: float,
    ious: Sequence[float],
    protocol: Protocol,
    samples: npt.NDArray[np.int64],
) -> dict[tuple[str, float], tuple[float, npt.NDArray[np.float64]]]:
    """AP by class and IoU, and the AP of each sample; columns of samples follow image names."""
    truth = run.ground_truth
    image_ids = [image.id for image in sorted(truth.images, key=lambda image: image.file_name)]
    detections = run.detections([threshold], [radius])[radius, threshold]
    found = {}
    for result in evaluate(truth, detections, protocol, ious):
        of_samples, _ = evaluate_samples(result, image_ids, samples, protocol.ap)
        found[result.class_name, result.iou] = (result.ap, of_samples)
    if len(truth.categories) > 1:
        for iou in ious:
            values = [found[name, iou] for name in truth.categories]
            ap = mean_over_classes([np.array(each) for each, _ in values])
            found[MEAN, iou] = (float(ap), mean_over_classes([each for _, each in values]))
    return found
