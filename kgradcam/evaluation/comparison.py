"""Compares the AP of runs on the same images, with paired bootstrap intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.evaluation.results import DIFFERENCE, MEAN, MIN_IMAGES, Result, Row
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
        grid = evaluate_run(run, thresholds, iou_thresholds, protocol, radii=radii)
        _, radius, threshold = grid.best
        assert radius is not None
        assert threshold is not None
        values = _values(run, radius, threshold, iou_thresholds, protocol, drawn)
        found.append((run, radius, threshold, values))
    _, _, _, of_first = found[0]
    rows = []
    for class_name in dict.fromkeys(name for name, _ in of_first):
        for place, (run, radius, threshold, values) in enumerate(found):
            for iou in iou_thresholds:
                first, this = of_first[class_name, iou], values[class_name, iou]
                difference, limits = math.nan, None
                if place:
                    difference = this.ap - first.ap
                    limits = interval(this.samples - first.samples)
                row = Row(
                    class_name,
                    {"ap": this.ap, DIFFERENCE: difference},
                    {"images": len(this.images)},
                    intervals={DIFFERENCE: limits},
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


@dataclass(frozen=True)
class _Measured:
    """The AP on all images and on each sample, and the ids of the images that show an object."""

    ap: float
    samples: npt.NDArray[np.float64]
    images: frozenset[int]


def _values(
    run: Run,
    radius: int,
    threshold: float,
    ious: Sequence[float],
    protocol: Protocol,
    samples: npt.NDArray[np.int64],
) -> dict[tuple[str, float], _Measured]:
    """The measurements by class and IoU; columns of samples follow the names of the images."""
    truth = run.ground_truth
    image_ids = [image.id for image in sorted(truth.images, key=lambda image: image.file_name)]
    detections = run.detections([threshold], [radius])[radius, threshold]
    found = {}
    for result in evaluate(truth, detections, protocol, ious):
        of_samples, _ = evaluate_samples(result, image_ids, samples, protocol.ap)
        images = frozenset(result.truth_images.tolist())
        found[result.class_name, result.iou] = _Measured(result.ap, of_samples, images)
    if len(truth.categories) > 1:
        for iou in ious:
            values = [found[name, iou] for name in truth.categories]
            found[MEAN, iou] = _Measured(
                float(mean_over_classes([np.array(each.ap) for each in values])),
                mean_over_classes([each.samples for each in values]),
                frozenset().union(*(each.images for each in values)),
            )
    return found
