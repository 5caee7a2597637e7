"""AP and recall of a run, or of anyone's detections: rows, and how they print."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kgradcam import progress
from kgradcam.metrics.boxes import Protocol, evaluate
from kgradcam.records import Detections, GroundTruth, keep_rows
from kgradcam.runs import Run
from kgradcam.tables import markdown


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        class_name: The class.
        threshold: The heat threshold of the boxes; `None` for given detections.
        iou: The intersection over union at which a box counts as right.
        ap: Average precision, 0 to 1; NaN where the class has no object that counts.
        recall: Share of the objects found, 0 to 1; NaN likewise.
        detections: How many boxes of the class there are.
        ground_truths: How many of its objects count.
    """

    class_name: str
    threshold: float | None
    iou: float
    ap: float
    recall: float
    detections: int
    ground_truths: int


@dataclass(frozen=True)
class Evaluation:
    """Measurements by one protocol.

    Attributes:
        protocol: The protocol's name.
        rows: By class, then threshold, then IoU.
    """

    protocol: str
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Returns one JSON object with `protocol` and `rows`; undefined fractions are null."""
        rows = []
        for row in self.rows:
            fields = asdict(row)
            fields = {"class": fields.pop("class_name"), **fields}
            rows.append(
                {
                    name: None if isinstance(value, float) and math.isnan(value) else value
                    for name, value in fields.items()
                }
            )
        return json.dumps({"protocol": self.protocol, "rows": rows}, indent=2)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns a header and lines of text: a line for each class and threshold, in percent."""
        ious = sorted({row.iou for row in self.rows})
        header = ["class", "threshold", "boxes", "objects"]
        header += [f"AP@{iou:g}" for iou in ious] + [f"recall@{iou:g}" for iou in ious]
        groups: dict[tuple[str, float | None], dict[float, Row]] = {}
        for row in self.rows:
            groups.setdefault((row.class_name, row.threshold), {})[row.iou] = row
        lines = []
        for (class_name, threshold), by_iou in groups.items():
            first = next(iter(by_iou.values()))
            lines.append(
                [
                    class_name,
                    "given" if threshold is None else f"{threshold:g}",
                    str(first.detections),
                    str(first.ground_truths),
                    *(_percent(by_iou[iou].ap) for iou in ious),
                    *(_percent(by_iou[iou].recall) for iou in ious),
                ]
            )
        return header, lines

    def to_markdown(self) -> str:
        """Returns the table as Markdown, below a line that names the protocol."""
        return f"Protocol `{self.protocol}`, percent.\n\n{markdown(*self.table())}"


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def evaluate_run(
    run: Run,
    thresholds: Sequence[float] | None,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    rows: str = "all",
    quiet: bool = True,
) -> Evaluation:
    """Scores a run.

    Args:
        run: The run.
        thresholds: Heat thresholds; those that the run did not store are drawn from its heatmaps,
            without the model. Default: the run's own.
        iou_thresholds: The intersections over union at which a box counts as right.
        protocol: How matching and AP are defined.
        rows: Which boxes of each image and class count; see `records.keep_rows`.
        quiet: Shows no progress on stderr.
    """
    thresholds = run.thresholds if thresholds is None else thresholds
    maps = run.info["counts"]["heatmaps"]
    with progress.bar(
        "boxes", maps, "heatmaps", quiet or set(thresholds) <= set(run.thresholds)
    ) as advance:
        by_threshold = run.detections(thresholds, advance)
    measured = [
        row
        for threshold in thresholds
        for row in evaluate_detections(
            run.ground_truth,
            keep_rows(by_threshold[threshold], rows),
            iou_thresholds,
            protocol,
            threshold,
        ).rows
    ]
    order = {name: i for i, name in enumerate(run.ground_truth.categories)}
    measured.sort(key=lambda row: order[row.class_name])  # stable: thresholds stay as asked for
    return Evaluation(protocol.name, tuple(measured))


def evaluate_detections(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    threshold: float | None = None,
) -> Evaluation:
    """Scores anyone's detections.

    Args:
        ground_truth: The annotated boxes.
        detections: The boxes to score.
        iou_thresholds: The intersections over union at which a box counts as right.
        protocol: How matching and AP are defined.
        threshold: The heat threshold that the detections were drawn with, if any.
    """
    results = evaluate(ground_truth, detections, protocol, iou_thresholds)
    return Evaluation(
        protocol.name,
        tuple(
            Row(
                result.class_name,
                threshold,
                result.iou,
                result.ap,
                result.recall,
                result.detections,
                result.ground_truths,
            )
            for result in results
        ),
    )
