"""AP and recall of a run, or of given detections, over grids of box options."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from kgradcam.boxes.options import BoxOptions
from kgradcam.evaluation.box_tables import BoxTables, boxes_of_run
from kgradcam.evaluation.results import PrecisionRecallCurve, Result
from kgradcam.evaluation.rows import MEAN, Option, Row, best_option
from kgradcam.evaluation.tables import shortened
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.bootstrap import (
    Samples,
    draw_samples,
    evaluate_samples,
    interval,
    mean_over_classes,
)
from kgradcam.metrics.protocol import Protocol
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth

HALF_A_CURVE = 5000
"""A curve of over twice as many boxes keeps the first ones, and as many at equal distances."""


def evaluate_run(
    run: Run,
    thresholds: Sequence[float] | None,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    rows: str = "all",
    *,
    radii: Sequence[int] | None = None,
    box_options: BoxOptions | None = None,
    baselines: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    quiet: bool = True,
) -> Result:
    """Measures the boxes of a run, in one pass over its heatmaps.

    Its arguments are those of `boxes_of_run` and of `evaluate_boxes`.
    """
    boxes = boxes_of_run(run, thresholds, radii, rows, box_options, quiet)
    return evaluate_boxes(
        boxes,
        iou_thresholds,
        protocol,
        baselines=baselines,
        bootstrap=bootstrap,
        seed=seed,
        quiet=quiet,
    )


def evaluate_boxes(
    boxes: BoxTables,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    *,
    baselines: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    quiet: bool = True,
) -> Result:
    """Measures the AP and recall of boxes.

    Args:
        boxes: The boxes of each option.
        iou_thresholds: Intersections over union from which a box counts as correct.
        protocol: The rules of matching and of AP.
        baselines: Also measures the full frame, a centre box, and for runs random heatmaps of the
            same smoothness with the best option.
        bootstrap: The number of bootstrap samples for intervals; 0 for none.
        seed: The random seed of samples and of random heatmaps.
        quiet: Shows no progress on stderr.

    Returns:
        Rows with the measures `ap` and `recall` for each class, option and IoU.
    """
    truth = boxes.ground_truth
    samples = draw_samples(len(truth.images), bootstrap, seed) if bootstrap else None
    image_ids = [image.id for image in truth.images]

    def measure(option: Option, detections: Detections) -> list[Row]:
        return measure_option(
            truth, option, detections, iou_thresholds, protocol, image_ids, samples
        )

    rows = []
    for option, detections in boxes.each(quiet):
        rows += measure(option, detections)
    best = best_option(rows)
    if baselines:
        for name, detections in boxes.baselines(best, seed).items():
            rows += measure((name, None, None), detections)
    result = result_of(boxes, rows, protocol)
    title = result.title
    if bootstrap:
        title += f"; 95 % intervals of {bootstrap} bootstrap samples in brackets"
    source = {**boxes.source, "bootstrap": bootstrap, "seed": seed}
    curves = _curves(truth, boxes.tables[best], iou_thresholds, protocol)
    return replace(result, title=title, source=source, curves=curves)


def result_of(boxes: BoxTables, rows: Sequence[Row], protocol: Protocol) -> Result:
    """Returns the result of measured options: its rows by class, then in their order."""
    order = {name: i for i, name in enumerate((*boxes.ground_truth.categories, MEAN))}
    in_order = sorted(rows, key=lambda row: order[row.class_name])
    title = f"Protocol {protocol.name}, percent{shortened(in_order)}"
    return Result(title, asdict(protocol), tuple(in_order), boxes.source)


def measure_option(
    ground_truth: GroundTruth,
    option: Option,
    detections: Detections,
    ious: Sequence[float],
    protocol: Protocol,
    image_ids: Sequence[int],
    samples: Samples | None = None,
) -> list[Row]:
    """Returns the rows of one option: `measure_classes` with intervals."""
    return [
        Row(
            each.class_name,
            each.values,
            each.counts,
            {k: interval(each.samples[k]) if each.samples else None for k in each.values},
            None,
            *option,
            each.iou,
        )
        for each in measure_classes(ground_truth, detections, ious, protocol, image_ids, samples)
    ]


@dataclass(frozen=True)
class Measured:
    """A class at one IoU, or the mean over several classes.

    Attributes:
        class_name: The class, or `"mean"`.
        iou: Intersection over union from which a box counts as correct.
        values: `ap` and `recall`.
        samples: Their values on each bootstrap sample; empty without samples.
        counts: The numbers of `detections` and `ground_truths`.
        images: The ids of the images that show an object that counts.
    """

    class_name: str
    iou: float
    values: dict[str, float]
    samples: dict[str, npt.NDArray[np.float64]]
    counts: dict[str, int]
    images: frozenset[int]


def measure_classes(
    ground_truth: GroundTruth,
    detections: Detections,
    ious: Sequence[float],
    protocol: Protocol,
    image_ids: Sequence[int],
    samples: Samples | None = None,
) -> list[Measured]:
    """Measures each class at each IoU, and the mean over several classes.

    The columns of `samples` belong to `image_ids`.
    """
    found = []
    for each in evaluate(ground_truth, detections, protocol, ious):
        of_samples = {}
        if samples is not None:
            ap, recall = evaluate_samples(each, image_ids, samples, protocol.ap)
            of_samples = {"ap": ap, "recall": recall}
        values = {"ap": each.ap, "recall": each.recall}
        counts = {"detections": each.detections, "ground_truths": each.ground_truths}
        images = frozenset(each.truth_images.tolist())
        found.append(Measured(each.class_name, each.iou, values, of_samples, counts, images))
    if len(ground_truth.categories) > 1:
        found += [_mean([each for each in found if each.iou == iou]) for iou in ious]
    return found


def _mean(classes: Sequence[Measured]) -> Measured:
    first = classes[0]
    return Measured(
        MEAN,
        first.iou,
        {k: float(mean_over_classes([each.values[k] for each in classes])) for k in first.values},
        {k: mean_over_classes([each.samples[k] for each in classes]) for k in first.samples},
        {k: sum(each.counts[k] for each in classes) for k in first.counts},
        frozenset().union(*(each.images for each in classes)),
    )


def _curves(
    ground_truth: GroundTruth, detections: Detections, ious: Sequence[float], protocol: Protocol
) -> tuple[PrecisionRecallCurve, ...]:
    curves = []
    for result in evaluate(ground_truth, detections, protocol, ious):
        found, ranks = np.cumsum(result.hits), np.arange(1, len(result.hits) + 1)
        if len(ranks) > 2 * HALF_A_CURVE:
            places = np.linspace(0, len(ranks) - 1, HALF_A_CURVE).astype(int)
            places = np.union1d(np.arange(HALF_A_CURVE), places)
            found, ranks = found[places], ranks[places]
        curves.append(
            PrecisionRecallCurve(
                result.class_name,
                result.iou,
                recall=(found / max(result.ground_truths, 1)).tolist(),
                precision=(found / ranks).tolist(),
            )
        )
    return tuple(curves)
