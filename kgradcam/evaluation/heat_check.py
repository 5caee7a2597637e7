"""Tests of explanations: whether a model looks at its objects, and at no shortcut.

The measures use the stored heatmaps of a run; no model is needed.
"""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from kgradcam import progress
from kgradcam.boxes.normalization import normalize
from kgradcam.errors import UserError
from kgradcam.evaluation.box_tables import describe
from kgradcam.evaluation.results import Result
from kgradcam.evaluation.rows import MIN_IMAGES, Row, headline
from kgradcam.metrics.bootstrap import mean_over_classes, with_mean
from kgradcam.metrics.pointing_game import energy_inside, pointing_hit, region_mask
from kgradcam.metrics.shortcuts import (
    FixedPlace,
    Places,
    border_share,
    heat_cells,
    outside_cells,
)
from kgradcam.runs.run import Run
from kgradcam.runs.tables import RowsByClass, sizes_by_id

HIGH_IS_GOOD: Mapping[str, str] = {
    "energy": "share of the heat in the boxes",
    "pointing": "share of heatmaps whose hottest pixel is in a box, or within 15 pixels",
}
LOW_IS_GOOD: Mapping[str, str] = {
    "border": "share of the heat in the outer tenth of the picture; 0.36 if heat is even",
    "fixed": "share of the heat at one place of all pictures, outside the boxes",
}
_SUSPICIOUS = 0.25
"""Even heat has 0.14 in the window of a fixed place."""
_MEAN_GRID = 32


@dataclass(frozen=True)
class HeatCheck:
    """Where the heat of a run lies.

    Attributes:
        result: A row for each class: `energy`, `pointing`, `border`, `fixed`; NaN where undefined.
        places: The fixed place of each class with enough pictures.
        mean_heat: The share of the heat in each cell of a picture, float64 `[32, 32]`: the mean
            over the heatmaps of each class.
    """

    result: Result
    places: Mapping[str, FixedPlace]
    mean_heat: Mapping[str, npt.NDArray[np.float64]]

    def shortcuts(self) -> dict[str, str]:
        """Returns a sentence for each class that seems to use a shortcut."""
        sentences = {}
        for row in self.result.rows:
            place = self.places.get(row.class_name)
            if place is not None and place.share >= _SUSPICIOUS:
                sentences[row.class_name] = (
                    f"{row.class_name}: {place.share:.0%} of the heat lies at one place outside "
                    f"the objects, at the {place.where()}, in {place.pictures} of "
                    f"{row.counts['heatmaps']} pictures. A watermark or label may be there."
                )
        return sentences


@dataclass(frozen=True)
class Verdict:
    """Whether a measure of a class keeps a limit.

    Attributes:
        class_name: The class, or `"mean"`.
        measure: The measure.
        failure: Why it fails; `None` if it does not.
    """

    class_name: str
    measure: str
    failure: str | None = None


def check_run(run: Run, quiet: bool = True, most: int | None = None) -> HeatCheck:
    """Measures where the heat of a run lies.

    Heatmaps of classes without an object that counts, as of wrongly predicted ones, have no
    `energy` and no `pointing`.

    Args:
        run: The run.
        quiet: Shows no progress on stderr.
        most: The most heatmaps that are measured, equally spaced. Default: all.

    Raises:
        UserError: The run has no heatmaps, or is damaged.
    """
    truth = run.ground_truth
    sizes = sizes_by_id(truth.images)
    objects = RowsByClass(truth)
    every = run.info.counts.heatmaps
    most = min(every, every if most is None else most)
    measured: dict[str, dict[str, array[float]]] = {}
    places: dict[str, Places] = {}
    heat: dict[str, npt.NDArray[np.float64]] = {}
    with progress.bar("heat", most, "heatmaps", quiet) as advance:
        for i, record in enumerate(run.heatmaps()):
            if (i + 1) * most // every == i * most // every:
                continue
            heatmap = normalize(record.heatmap, sizes[record.image_id])
            indices = objects(record.image_id, record.category_id)
            boxes = truth.boxes[indices]
            counts = bool(len(indices)) and not truth.difficult[indices].all()
            name = truth.categories[record.category_id - 1]
            values = {
                "energy": energy_inside(heatmap, boxes) if counts else math.nan,
                "pointing": float(pointing_hit(heatmap, boxes)) if counts else math.nan,
                "border": border_share(heatmap),
            }
            of_class = measured.setdefault(name, {each: array("d") for each in values})
            for each, value in values.items():
                of_class[each].append(value)
            inside = region_mask(boxes, heatmap.shape)
            places.setdefault(name, Places()).add(outside_cells(heatmap, inside))
            heat[name] = heat.get(name, 0) + heat_cells(heatmap, _MEAN_GRID)
            advance(1)
    if not measured:
        raise UserError(f"{run.folder} has no heatmaps to check.")
    counted = {name: len(each["border"]) for name, each in measured.items()}
    # Few pictures have heat at one place by chance.
    fixed = {name: places[name].fixed() for name in places if counted[name] >= MIN_IMAGES}
    means = {
        name: {
            **{each: float(mean_over_classes(values)) for each, values in measured[name].items()},
            "fixed": fixed[name].share if name in fixed else math.nan,
        }
        for name in truth.categories
        if name in measured
    }
    result = Result(
        "Where the heat lies",
        {"name": "check"},
        tuple(
            Row(name, values, {"heatmaps": counted.get(name, sum(counted.values()))})
            for name, values in with_mean(means).items()
        ),
        describe(run),
        percent=False,
    )
    return HeatCheck(result, fixed, {name: heat[name] / counted[name] for name in means})


def hold_to_limits(
    found: HeatCheck,
    limits: Mapping[str, float],
    per_class: bool = False,
    baseline: HeatCheck | None = None,
    tolerance: float = 0.02,
) -> list[Verdict]:
    """Compares the measures of a run with limits, and with those of another run.

    Args:
        found: The measures.
        limits: The limit of each measure: the lowest value of `HIGH_IS_GOOD`, the highest value
            of `LOW_IS_GOOD`.
        per_class: Whether each class must keep the limits. Default: their mean.
        baseline: The measures of an earlier run. Each measure may be worse by `tolerance`.
        tolerance: See `baseline`.

    Returns:
        A verdict for each limit. A measure that is undefined fails, since nothing was tested.

    Raises:
        UserError: The baseline has other classes, so that nothing can be compared.
    """
    rows = {row.class_name: row.measures for row in found.result.rows}
    before = {} if baseline is None else {r.class_name: r.measures for r in baseline.result.rows}
    if not per_class:
        summary = headline(found.result.rows)
        rows = {summary: rows[summary]}
    if baseline is not None and not rows.keys() & before.keys():
        raise UserError(
            f"The baseline must have measures of {', '.join(rows)}, as the run. Received: those of "
            f"{', '.join(before)}.{'' if per_class else ' --per-class compares class by class.'}"
        )
    verdicts = []
    for name, values in rows.items():
        for measure, limit in limits.items():
            verdicts.append(Verdict(name, measure, _failure(measure, values[measure], limit)))
        for measure, value in before.get(name, {}).items():
            if not math.isnan(value):
                worse = -tolerance if measure in HIGH_IS_GOOD else tolerance
                reason = _failure(measure, values[measure], value + worse)
                if reason is not None:
                    reason += f" The baseline has {value:.3f}, the tolerance is {tolerance:g}."
                verdicts.append(Verdict(name, f"{measure} beside the baseline", reason))
    return verdicts


def to_junit(verdicts: list[Verdict], suite: str) -> str:
    """Returns verdicts as JUnit XML, which continuous integration shows as tests."""
    failures = sum(verdict.failure is not None for verdict in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failures)}
    root = ElementTree.Element("testsuites", counts)
    tests = ElementTree.SubElement(root, "testsuite", {"name": _printable(suite), **counts})
    for verdict in verdicts:
        name = _printable(f"{verdict.class_name}: {verdict.measure}")
        case = ElementTree.SubElement(tests, "testcase", {"classname": "kgradcam", "name": name})
        if verdict.failure is not None:
            ElementTree.SubElement(case, "failure", {"message": _printable(verdict.failure)})
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _failure(measure: str, value: float, limit: float) -> str | None:
    if math.isnan(value):
        return f"{measure} is undefined: no heatmap has a value of it."
    if measure in HIGH_IS_GOOD and value < limit:
        return f"{measure} is {value:.3f}, below {limit:.3f}."
    if measure in LOW_IS_GOOD and value > limit:
        return f"{measure} is {value:.3f}, above {limit:.3f}."
    return None


def _printable(text: str) -> str:
    """Escapes characters that XML cannot hold."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
