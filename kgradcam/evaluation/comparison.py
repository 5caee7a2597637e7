"""Runs on the same images, side by side: which differ really?"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError
from kgradcam.evaluation.grid import MEAN, best_option, evaluate_run
from kgradcam.evaluation.markdown import markdown
from kgradcam.metrics.average_precision import Protocol, evaluate
from kgradcam.metrics.bootstrap import draw_samples, interval, mean_over_classes, resample
from kgradcam.runs.run import Run


@dataclass(frozen=True)
class Difference:
    """A run, held against the first one.

    Attributes:
        run: Its folder.
        class_name: The class, or `"mean"` over several.
        radius: Its smoothing radius.
        threshold: Its heat threshold.
        iou: The intersection over union at which a box counts as right.
        ap: Its average precision, 0 to 1.
        difference: How much higher than the first run's; `None` for the first.
        interval: Where 95 % of paired bootstrap samples have the difference.
    """

    run: str
    class_name: str
    radius: int
    threshold: float
    iou: float
    ap: float
    difference: float | None
    interval: tuple[float, float] | None

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        protocol: The protocol's name.
        samples: How many bootstrap samples.
        rows: By class, then run, then IoU.
    """

    protocol: str
    samples: int
    rows: tuple[Difference, ...]

    def to_json(self) -> str:
        """Returns one JSON object with `protocol`, `samples` and `rows`."""
        rows = []
        for row in self.rows:
            fields = asdict(row)
            rows.append({"class": fields.pop("class_name"), **fields, "is_real": row.is_real})
        content = {"protocol": self.protocol, "samples": self.samples, "rows": rows}
        return json.dumps(content, indent=1)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns a header and lines of text in percent, a line for each class and run."""
        ious = sorted({row.iou for row in self.rows})
        header = ["class", "run", "radius", "threshold"]
        for iou in ious:
            header += [f"AP@{iou:g}", "against the first"]
        groups: dict[tuple[str, str], dict[float, Difference]] = {}
        for row in self.rows:
            groups.setdefault((row.class_name, row.run), {})[row.iou] = row
        lines = []
        for (class_name, run), by_iou in groups.items():
            first = next(iter(by_iou.values()))
            line = [class_name, run, str(first.radius), f"{first.threshold:g}"]
            for iou in ious:
                line += [f"{100 * by_iou[iou].ap:.2f}", _against(by_iou[iou])]
            lines.append(line)
        return header, lines

    def to_markdown(self) -> str:
        """Returns the table as Markdown, below a line that explains it."""
        return f"{self.title}.\n\n{markdown(*self.table())}"

    @property
    def title(self) -> str:
        """Names the protocol, and says how to read the table."""
        return (
            f"Protocol {self.protocol}, percent; in brackets 95 % of {self.samples} paired "
            "bootstrap samples, * where they leave out 0"
        )


def _against(row: Difference) -> str:
    if row.difference is None or row.interval is None:
        return ""
    low, high = row.interval
    mark = " *" if row.is_real else ""
    return f"{100 * row.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]{mark}"


def compare_runs(
    runs: Sequence[Run],
    iou_thresholds: Sequence[float],
    protocol: Protocol,
    thresholds: Sequence[float] | None = None,
    radii: Sequence[int] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compares the AP of runs on the same images.

    Args:
        runs: Two or more.
        iou_thresholds: The intersections over union at which a box counts as right.
        protocol: How matching and AP are defined.
        thresholds: Heat thresholds; of several each run takes its best. Default: its own.
        radii: Smoothing radii, likewise.
        samples: How many bootstrap samples.
        seed: For these.

    Returns:
        The comparison, each run against the first.

    Raises:
        UserError: The runs are of other images or classes.
    """
    for run in runs[1:]:
        _check_alike(runs[0], run)
    drawn = draw_samples(len(runs[0].ground_truth.images), samples, seed)
    found = {}
    for place, run in enumerate(runs):
        grid = evaluate_run(run, thresholds, iou_thresholds, protocol, radii=radii)
        _, radius, threshold = best_option(grid.rows)
        assert radius is not None
        assert threshold is not None
        values = _values(run, radius, threshold, iou_thresholds, protocol, drawn)
        found[place] = (radius, threshold, values)
    rows = []
    for key in found[0][2]:
        first_ap, first_samples = found[0][2][key]
        for place, (radius, threshold, values) in found.items():
            ap, resampled = values[key]
            limits = interval(resampled - first_samples) if place else None
            difference = ap - first_ap if place else None
            name = str(runs[place].folder)
            rows.append(Difference(name, key[0], radius, threshold, key[1], ap, difference, limits))
    names = [*runs[0].ground_truth.categories, MEAN]
    rows.sort(key=lambda row: names.index(row.class_name))
    return Comparison(protocol.name, samples, tuple(rows))


def _check_alike(one: Run, other: Run) -> None:
    for what, of_one, of_other in (
        ("images", _image_names(one), _image_names(other)),
        ("classes", set(one.ground_truth.categories), set(other.ground_truth.categories)),
    ):
        if of_one != of_other:
            odd = min(of_one ^ of_other)
            raise UserError(
                f"Runs that are compared must have the same {what}. Received: {one.folder} with "
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
    """AP by class and IoU, and on each sample; the samples' columns go by the images' names."""
    truth = run.ground_truth
    image_ids = [image.id for image in sorted(truth.images, key=lambda image: image.file_name)]
    detections = run.detections([threshold], [radius])[radius, threshold]
    found = {}
    for result in evaluate(truth, detections, protocol, ious):
        resampled, _ = resample(result, image_ids, samples, protocol.ap)
        found[result.class_name, result.iou] = (result.ap, resampled)
    if len(truth.categories) > 1:
        for iou in ious:
            values = [found[name, iou] for name in truth.categories]
            ap = mean_over_classes([np.array(each) for each, _ in values])
            found[MEAN, iou] = (float(ap), mean_over_classes([each for _, each in values]))
    return found
