"""AP and recall of a run, or of anyone's detections, over grids of options.

`evaluation.json`, which all that is printed or drawn comes from, holds one object:

===============  ==================================================================================
`schema`         1
`kgradcam`       the version that wrote it
`protocol`       the rules: `name`, `ap`, `difficult`, `inclusive`, `match`, `mixed_pixels`
`source`         for a run its dataset, split, model, layer and method; always `images`, `rows`
                 (which boxes counted), `bootstrap` (how many samples) and `seed`
`best`           `radius` and `threshold` with the highest AP, mean over classes and IoU
`rows`           measurements, see `Row`; undefined fractions are null
`curves`         for the best options, by class and IoU: `recall` and `precision` after each box
===============  ==================================================================================
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam import __version__, progress
from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UserError
from kgradcam.evaluation.baselines import centre_box, full_frame, random_heatmaps
from kgradcam.evaluation.markdown import markdown
from kgradcam.metrics.average_precision import ClassResult, Protocol, evaluate
from kgradcam.metrics.bootstrap import (
    Samples,
    draw_samples,
    interval,
    mean_over_classes,
    resample,
)
from kgradcam.runs.run import Run, draw_boxes
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows

SCHEMA = 1
MEAN = "mean"
HEATMAP, GIVEN = "heatmap", "given"
SHOWN = 20

Option = tuple[str, int | None, float | None]
"""What boxes come from, their smoothing radius and their heat threshold."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        boxes: Where the boxes come from: `"heatmap"`; `"given"`, from a file; or the baselines
            `"full frame"`, `"centre box"` and `"random heatmap"`.
        class_name: The class, or `"mean"` over several.
        radius: The smoothing radius of the boxes; `None` where there is none.
        threshold: Their heat threshold; likewise.
        iou: The intersection over union at which a box counts as right.
        ap: Average precision, 0 to 1; NaN where the class has no object that counts.
        recall: Share of the objects found, 0 to 1; NaN likewise.
        detections: How many boxes of the class there are.
        ground_truths: How many of its objects count.
        ap_interval: Where 95 % of bootstrap samples have the AP, if any were drawn.
        recall_interval: Likewise for the recall.
    """

    boxes: str
    class_name: str
    radius: int | None
    threshold: float | None
    iou: float
    ap: float
    recall: float
    detections: int
    ground_truths: int
    ap_interval: tuple[float, float] | None = None
    recall_interval: tuple[float, float] | None = None

    @property
    def option(self) -> Option:
        """What the boxes were drawn with."""
        return self.boxes, self.radius, self.threshold


@dataclass(frozen=True)
class Curve:
    """Precision over recall, a point for each box.

    Attributes:
        class_name: The class.
        iou: The intersection over union at which a box counts as right.
        recall: `[boxes]`, not falling.
        precision: `[boxes]`.
    """

    class_name: str
    iou: float
    recall: list[float]
    precision: list[float]


@dataclass(frozen=True)
class Evaluation:
    """Measurements by one protocol.

    Attributes:
        protocol: The rules.
        rows: By class, then option, then IoU.
        source: What was measured; see the module.
        curves: For the best option.
    """

    protocol: Protocol
    rows: tuple[Row, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()

    @property
    def ious(self) -> list[float]:
        """The IoU thresholds, in increasing order."""
        return sorted({row.iou for row in self.rows})

    @property
    def headline(self) -> str:
        """The class that stands for all: their mean, or the only one."""
        names = list(dict.fromkeys(row.class_name for row in self.rows))
        return MEAN if len(names) > 1 else names[0]

    @property
    def best(self) -> Option:
        """The option, no baseline, with the highest AP in the mean; the first of equals."""
        return best_option(self.rows)

    @property
    def chosen_on_the_test(self) -> bool:
        """Whether the best option was selected on the data that it is scored on."""
        return len({row.option for row in self.rows if row.boxes == HEATMAP}) > 1

    def value(self, metric: str, option: Option | None = None) -> float:
        """Returns a measure such as `"ap@0.5"` or `"recall@0.3"`, in the mean over the classes.

        Args:
            metric: See `parse_metric`.
            option: Default: the best.

        Raises:
            UserError: There is no such measure.
        """
        name, iou = parse_metric(metric)
        option = self.best if option is None else option
        for row in self.rows:
            if (row.option, row.class_name) == (option, self.headline) and row.iou == iou:
                return float(getattr(row, name))
        raise UserError(
            f"metric={metric!r} was not measured. IoU measured: "
            f"{', '.join(f'{each:g}' for each in self.ious)}."
        )

    def to_json(self) -> str:
        """Returns `evaluation.json`; see the module."""
        rows = []
        for row in self.rows:
            fields = asdict(row)
            fields["class"] = fields.pop("class_name")
            rows.append({name: _defined(value) for name, value in fields.items()})
        curves = [
            {"class": each.class_name, "iou": each.iou, **_points(each)} for each in self.curves
        ]
        _, radius, threshold = self.best
        content = {
            "schema": SCHEMA,
            "kgradcam": __version__,
            "protocol": asdict(self.protocol),
            "source": dict(self.source),
            "best": {"radius": radius, "threshold": threshold},
            "rows": rows,
            "curves": curves,
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def to_csv(self) -> str:
        """Returns the rows as comma-separated values, fractions as they are."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        names = ["boxes", "class_name", "radius", "threshold", "iou", "ap", "recall"]
        names += ["detections", "ground_truths"]
        writer.writerow([*names, "ap_low", "ap_high", "recall_low", "recall_high"])
        for row in self.rows:
            cells = [getattr(row, name) for name in names]
            for limits in (row.ap_interval, row.recall_interval):
                cells += limits or (None, None)
            writer.writerow(cells)
        return buffer.getvalue()

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns a header and lines of text, in percent: a line for each class and option.

        Of more than `SHOWN` options only the best are in it, and the baselines.
        """
        ious = self.ious
        radii = {row.radius for row in self.rows if row.boxes == HEATMAP}
        header = ["class", *(["radius"] if len(radii) > 1 else []), "threshold", "boxes", "objects"]
        header += [f"AP@{iou:g}" for iou in ious] + [f"recall@{iou:g}" for iou in ious]
        groups: dict[tuple[str, Option], dict[float, Row]] = {}
        for row in self.rows:
            groups.setdefault((row.class_name, row.option), {})[row.iou] = row
        shown = self._shown()
        lines = []
        for (class_name, option), by_iou in groups.items():
            if option not in shown:
                continue
            boxes, radius, threshold = option
            first = next(iter(by_iou.values()))
            lines.append(
                [
                    class_name,
                    *(["-" if radius is None else str(radius)] if len(radii) > 1 else []),
                    f"{threshold:g}" if boxes == HEATMAP else boxes,
                    str(first.detections),
                    str(first.ground_truths),
                    *(_percent(by_iou[iou].ap, by_iou[iou].ap_interval) for iou in ious),
                    *(_percent(by_iou[iou].recall, by_iou[iou].recall_interval) for iou in ious),
                ]
            )
        return header, lines

    def _shown(self) -> set[Option]:
        scores = _mean_ap(self.rows)
        drawn = [option for option in scores if option[0] == HEATMAP]
        if len(drawn) > SHOWN:
            drawn = sorted(drawn, key=lambda option: -scores[option])[:SHOWN]
        return {*drawn, *(option for option in scores if option[0] != HEATMAP)}

    def to_markdown(self) -> str:
        """Returns the table as Markdown, below a line that names the protocol."""
        return f"{self.title}.\n\n{markdown(*self.table())}"

    @property
    def title(self) -> str:
        """Names the protocol, and what of the table needs a word."""
        title = f"Protocol {self.protocol.name}, percent"
        options = {row.option for row in self.rows if row.boxes == HEATMAP}
        if len(options) > SHOWN:
            title += f"; the best {SHOWN} of {len(options)} options"
        if self.source.get("bootstrap"):
            title += f"; 95 % of {self.source['bootstrap']} bootstrap samples in brackets"
        return title


def parse_metric(text: str) -> tuple[str, float]:
    """Reads the name of a measure.

    Returns:
        `"ap"` or `"recall"`, and the IoU.

    Raises:
        UserError: It is none.

    Example:
        >>> parse_metric("ap@0.5")
        ('ap', 0.5)
    """
    name, _, iou = text.lower().partition("@")
    try:
        if name in ("ap", "recall") and 0 <= float(iou) <= 1:
            return name, float(iou)
    except ValueError:
        pass
    raise UserError(f"metric must be ap@IOU or recall@IOU, as ap@0.5. Received: {text!r}.")


def best_option(rows: Sequence[Row]) -> Option:
    """Returns the option, no baseline, with the highest AP in the mean over classes and IoU."""
    scores = _mean_ap([row for row in rows if row.boxes in (HEATMAP, GIVEN)])
    return max(scores, key=lambda option: scores[option])


def _mean_ap(rows: Sequence[Row]) -> dict[Option, float]:
    values: dict[Option, list[float]] = {}
    for row in rows:
        found = values.setdefault(row.option, [])
        if row.class_name != MEAN and not math.isnan(row.ap):
            found.append(row.ap)
    return {option: sum(found) / len(found) if found else 0.0 for option, found in values.items()}


def _defined(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_defined(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _points(curve: Curve) -> dict[str, list[float]]:
    return {
        "recall": [round(each, 6) for each in curve.recall],
        "precision": [round(each, 6) for each in curve.precision],
    }


def _percent(fraction: float, limits: tuple[float, float] | None) -> str:
    if math.isnan(fraction):
        return "-"
    if limits is None:
        return f"{100 * fraction:.2f}"
    return f"{100 * fraction:.1f} [{100 * limits[0]:.1f}, {100 * limits[1]:.1f}]"


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
) -> Evaluation:
    """Scores a run over a grid of options, in one pass over its heatmaps.

    Args:
        run: The run.
        thresholds: Heat thresholds; those that the run did not store are drawn from its heatmaps,
            without the model. Default: the run's own.
        iou_thresholds: The intersections over union at which a box counts as right.
        protocol: How matching and AP are defined.
        rows: Which boxes of each image and class count; see `records.keep_rows`.
        radii: Smoothing radii in pixels. Default: that of the box options.
        box_options: How heatmaps become boxes, otherwise. Default: the run's own.
        drawn: Their boxes, where they are at hand from `Run.detections`.
        baselines: Also scores the full frame, a centre box, and random heatmaps of the same
            smoothness with the best option.
        bootstrap: How many bootstrap samples to draw for intervals.
        seed: For these, and for random heatmaps.
        quiet: Shows no progress on stderr.
    """
    box_options = run.options if box_options is None else box_options
    thresholds = run.default_thresholds(box_options) if thresholds is None else thresholds
    radii = [box_options.smooth_radius] if radii is None else radii
    if drawn is None:
        with progress.bar("boxes", run.info["counts"]["heatmaps"], "heatmaps", quiet) as advance:
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
        assert best[1] is not None
        assert best[2] is not None
        maps_at_random = random_heatmaps(run.heatmaps(), seed)
        at_random = draw_boxes(maps_at_random, truth.images, [best[2]], [best[1]], box_options)
        for name, detections in (
            ("full frame", full_frame(truth)),
            ("centre box", centre_box(truth)),
            ("random heatmap", keep_rows(at_random[best[1], best[2]], rows)),
        ):
            option = (name, None, None)
            measured += _measure(truth, option, detections, iou_thresholds, protocol, samples)
    source = {
        **describe(run, rows),
        "score": box_options.score,
        "bootstrap": bootstrap,
        "seed": seed,
    }
    curves = _curves(truth, options[best], iou_thresholds, protocol)
    return Evaluation(protocol, _by_class(measured, truth), source, curves)


def describe(run: Run, rows: str) -> dict[str, Any]:
    """Returns what an evaluation says of its run; see the module."""
    return {
        "dataset": run.info["dataset"]["name"],
        "split": run.info["dataset"]["split"],
        "model": run.info["model"]["name"],
        "layer": run.info["model"]["layer"],
        "method": run.info["configuration"].get("method", "gradcam"),
        "score": run.options.score,
        "images": len(run.ground_truth.images),
        "rows": rows,
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
) -> Evaluation:
    """Scores anyone's detections.

    Args:
        ground_truth: The annotated boxes.
        detections: The boxes to score.
        iou_thresholds: The intersections over union at which a box counts as right.
        protocol: How matching and AP are defined.
        baselines: Also scores the full frame and a centre box; the sizes of the images must be
            known.
        bootstrap: How many bootstrap samples to draw for intervals.
        seed: For these.
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
    return Evaluation(protocol, _by_class(measured, ground_truth), source, curves)


def _measure(
    ground_truth: GroundTruth,
    option: Option,
    detections: Detections,
    ious: Sequence[float],
    protocol: Protocol,
    samples: Samples | None,
) -> list[Row]:
    """The rows of one option: of each class and IoU, and of the mean if there are several."""
    image_ids = [image.id for image in ground_truth.images]
    results = evaluate(ground_truth, detections, protocol, ious)
    rows, resampled = [], []
    for result in results:
        limits: tuple[Any, Any] = (None, None)
        if samples is not None:
            resampled.append(resample(result, image_ids, samples, protocol.ap))
            limits = (interval(resampled[-1][0]), interval(resampled[-1][1]))
        rows.append(_row(option, result, *limits))
    if len(ground_truth.categories) > 1:
        rows += [_mean_row(option, rows, resampled, iou) for iou in ious]
    return rows


def _row(option: Option, result: ClassResult, ap_interval: Any, recall_interval: Any) -> Row:
    return Row(
        *(option[0], result.class_name, *option[1:], result.iou, result.ap, result.recall),
        *(result.detections, result.ground_truths, ap_interval, recall_interval),
    )


def _mean_row(
    option: Option,
    rows: Sequence[Row],
    resampled: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    iou: float,
) -> Row:
    chosen = [i for i, row in enumerate(rows) if row.iou == iou and row.class_name != MEAN]
    of_classes = [rows[i] for i in chosen]
    limits: list[Any] = [None, None]
    if resampled:
        limits = [
            interval(mean_over_classes([resampled[i][part] for i in chosen])) for part in (0, 1)
        ]
    return Row(
        option[0],
        MEAN,
        *option[1:],
        iou,
        float(mean_over_classes([np.array(row.ap) for row in of_classes])),
        float(mean_over_classes([np.array(row.recall) for row in of_classes])),
        sum(row.detections for row in of_classes),
        sum(row.ground_truths for row in of_classes),
        *limits,
    )


def _by_class(rows: Sequence[Row], ground_truth: GroundTruth) -> tuple[Row, ...]:
    order = {name: i for i, name in enumerate((*ground_truth.categories, MEAN))}
    return tuple(sorted(rows, key=lambda row: order[row.class_name]))  # stable


def _curves(
    ground_truth: GroundTruth, detections: Detections, ious: Sequence[float], protocol: Protocol
) -> tuple[Curve, ...]:
    curves = []
    for result in evaluate(ground_truth, detections, protocol, ious):
        found = np.cumsum(result.hits)
        curves.append(
            Curve(
                result.class_name,
                result.iou,
                recall=(found / max(result.ground_truths, 1)).tolist(),
                precision=(found / np.arange(1, len(found) + 1)).tolist(),
            )
        )
    return tuple(curves)
