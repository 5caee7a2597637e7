"""AP and recall of a run, or of given detections, over grids of box options."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam import progress
from kgradcam.boxes.options import BoxOptions
from kgradcam.evaluation.baselines import centre_box, full_frame, random_heatmaps
from kgradcam.evaluation.results import (
    GIVEN,
    HEATMAP,
    MEAN,
    Option,
    PrecisionRecallCurve,
    Result,
    Row,
    best_option,
    shortened,
)
from kgradcam.metrics.average_precision import ClassResult, evaluate
from kgradcam.metrics.bootstrap import (
    Samples,
    draw_samples,
    evaluate_samples,
    interval,
    mean_over_classes,
)
from kgradcam.metrics.protocol import Protocol
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows


def evaluate_run(
    run: Run,
    thresholds: Sequence[float] | None,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    rows: str = "all",
    *,
    radii: Sequence[int] | None = None,
    box_options: BoxOptions | None = None,
    drawn: Mapping[tuple[int, float], Detections] | None = None,
    baselines: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    quiet: bool = True,
) -> Result:
    """Measures the AP and recall of a run over a grid of options, in one pass over its heatmaps.

    Args:
        run: The run.
        thresholds: Heat thresholds in [0, 1]. Boxes of thresholds that the run did not store are
            computed from its heatmaps, without the model. Default: the run's own.
        iou_thresholds: Intersections over union from which a box counts as correct.
        protocol: The rules of matching and of AP.
        rows: The boxes of each image and class that count; see `runs.tables.keep_rows`.
        radii: Smoothing radii in pixels. Default: the radius of the box options.
        box_options: All other options of boxes. Default: the run's own.
        drawn: The boxes of the grid from `Run.detections`, if they are computed already.
        baselines: Also measures the full frame, a centre box, and random heatmaps of the same
            smoothness with the best option.
        bootstrap: The number of bootstrap samples for intervals; 0 for none.
        seed: The random seed of samples and of random heatmaps.
        quiet: Shows no progress on stderr.

    Returns:
        Rows with the measures `ap` and `recall` for each class, option and IoU.
    """
    box_options = run.options if box_options is None else box_options
    thresholds = run.default_thresholds(box_options) if thresholds is None else thresholds
    radii = [box_options.smooth_radius] if radii is None else radii
    if drawn is None:
        with progress.bar("boxes", run.info.counts.heatmaps, "heatmaps", quiet) as advance:
            drawn = run.detections(thresholds, radii, box_options, advance)
    truth = run.ground_truth
    options: dict[Option, Detections] = {
        (HEATMAP, radius, threshold): keep_rows(drawn[radius, threshold], rows)
        for radius in radii
        for threshold in thresholds
    }
    samples = draw_samples(len(truth.images), bootstrap, seed) if bootstrap else None
    with progress.bar("scores", len(options), "options", quiet) as advance:
        measured = []
        for option, detections in options.items():
            measured += _measure(truth, option, detections, iou_thresholds, protocol, samples)
            advance(1)
    best = best_option(measured)
    if baselines:
        _, radius, threshold = best
        assert radius is not None
        assert threshold is not None
        noise = random_heatmaps(run.heatmaps(), seed)
        of_noise = draw_boxes(noise, truth.images, [threshold], [radius], box_options)
        for name, detections in (
            ("full frame", full_frame(truth)),
            ("centre box", centre_box(truth)),
            ("random heatmap", keep_rows(of_noise[radius, threshold], rows)),
        ):
            option = (name, None, None)
            measured += _measure(truth, option, detections, iou_thresholds, protocol, samples)
    source = {
        **describe(run),
        "rows": rows,
        "score": box_options.score,
        "bootstrap": bootstrap,
        "seed": seed,
    }
    curves = _curves(truth, options[best], iou_thresholds, protocol)
    return _result(protocol, _by_class(measured, truth), source, curves)


def describe(run: Run) -> dict[str, Any]:
    """Returns the part of a `source` that every result of a run has."""
    return {
        "dataset": run.info.dataset.name,
        "split": run.info.dataset.split,
        "model": run.info.model.name,
        "layer": run.info.model.layer,
        "method": run.info.configuration.method,
        "images": len(run.ground_truth.images),
    }


def evaluate_detections(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    *,
    baselines: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
) -> Result:
    """Measures the AP and recall of given detections.

    Args:
        ground_truth: The annotated boxes.
        detections: The predicted boxes.
        iou_thresholds: Intersections over union from which a box counts as correct.
        protocol: The rules of matching and of AP.
        baselines: Also measures the full frame and a centre box; needs the sizes of the images.
        bootstrap: The number of bootstrap samples for intervals; 0 for none.
        seed: The random seed of the samples.

    Returns:
        Rows with the measures `ap` and `recall` for each class and IoU.
    """
    samples = draw_samples(len(ground_truth.images), bootstrap, seed) if bootstrap else None
    options = {GIVEN: detections}
    if baselines:
        options |= {"full frame": full_frame(ground_truth), "centre box": centre_box(ground_truth)}
    measured = [
        row
        for name, found in options.items()
        for row in _measure(
            ground_truth, (name, None, None), found, iou_thresholds, protocol, samples
        )
    ]
    source = {"images": len(ground_truth.images), "bootstrap": bootstrap, "seed": seed}
    curves = _curves(ground_truth, detections, iou_thresholds, protocol)
    return _result(protocol, _by_class(measured, ground_truth), source, curves)


def _result(
    protocol: Protocol,
    rows: tuple[Row, ...],
    source: Mapping[str, Any],
    curves: tuple[PrecisionRecallCurve, ...],
) -> Result:
    title = f"Protocol {protocol.name}, percent{shortened(rows)}"
    if source["bootstrap"]:
        title += f"; 95 % intervals of {source['bootstrap']} bootstrap samples in brackets"
    return Result(title, asdict(protocol), rows, source, curves)


def _measure(
    ground_truth: GroundTruth,
    option: Option,
    detections: Detections,
    ious: Sequence[float],
    protocol: Protocol,
    samples: Samples | None,
) -> list[Row]:
    """The rows of one option: each class and IoU, and the mean over several classes."""
    image_ids = [image.id for image in ground_truth.images]
    results = evaluate(ground_truth, detections, protocol, ious)
    of_samples: list[Any] = [None] * len(results)
    if samples is not None:
        of_samples = [evaluate_samples(each, image_ids, samples, protocol.ap) for each in results]
    rows = [
        _row(
            (each.class_name, each.iou, option),
            (each.ap, each.recall),
            (each.detections, each.ground_truths),
            sampled,
        )
        for each, sampled in zip(results, of_samples, strict=True)
    ]
    if len(ground_truth.categories) > 1:
        rows += [_mean_row(option, results, of_samples, iou) for iou in ious]
    return rows


def _row(
    place: tuple[str, float, Option],
    measures: tuple[float, float],
    counts: tuple[int, int],
    sampled: Sequence[npt.NDArray[np.float64]] | None,
) -> Row:
    """A row of AP and recall, with the intervals of their samples."""
    class_name, iou, (boxes, radius, threshold) = place
    ap, recall = (None, None) if sampled is None else map(interval, sampled)
    return Row(
        class_name,
        measures=dict(zip(("ap", "recall"), measures, strict=True)),
        counts=dict(zip(("detections", "ground_truths"), counts, strict=True)),
        intervals={"ap": ap, "recall": recall},
        boxes=boxes,
        radius=radius,
        threshold=threshold,
        iou=iou,
    )


def _mean_row(
    option: Option, results: Sequence[ClassResult], of_samples: Sequence[Any], iou: float
) -> Row:
    chosen = [i for i, each in enumerate(results) if each.iou == iou]
    of_classes = [results[i] for i in chosen]
    sampled = None
    if of_samples[0] is not None:
        sampled = [mean_over_classes([of_samples[i][part] for i in chosen]) for part in (0, 1)]
    return _row(
        (MEAN, iou, option),
        (
            float(mean_over_classes([np.array(each.ap) for each in of_classes])),
            float(mean_over_classes([np.array(each.recall) for each in of_classes])),
        ),
        (
            sum(each.detections for each in of_classes),
            sum(each.ground_truths for each in of_classes),
        ),
        sampled,
    )


def _by_class(rows: Sequence[Row], ground_truth: GroundTruth) -> tuple[Row, ...]:
    order = {name: i for i, name in enumerate((*ground_truth.categories, MEAN))}
    return tuple(sorted(rows, key=lambda row: order[row.class_name]))  # stable


def _curves(
    ground_truth: GroundTruth, detections: Detections, ious: Sequence[float], protocol: Protocol
) -> tuple[PrecisionRecallCurve, ...]:
    curves = []
    for result in evaluate(ground_truth, detections, protocol, ious):
        found = np.cumsum(result.hits)
        curves.append(
            PrecisionRecallCurve(
                result.class_name,
                result.iou,
                recall=(found / max(result.ground_truths, 1)).tolist(),
                precision=(found / np.arange(1, len(found) + 1)).tolist(),
            )
        )
    return tuple(curves)
