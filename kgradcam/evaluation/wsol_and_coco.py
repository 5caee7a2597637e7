"""Protocols beside AP at some IoU: COCO's, and those of weakly supervised localization."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam import __version__, progress
from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.data import voc
from kgradcam.data.images import read_labels
from kgradcam.data.voc_folder import VocFolder
from kgradcam.evaluation.grid import SCHEMA, describe
from kgradcam.evaluation.markdown import markdown
from kgradcam.metrics import wsol
from kgradcam.metrics.bootstrap import mean_over_classes
from kgradcam.metrics.coco import evaluate_coco
from kgradcam.metrics.pixel_precision import PixelCounts
from kgradcam.metrics.pointing_game import pointing_hit
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Detections, GroundTruth, keep_rows

THRESHOLDS = tuple(i / 100 for i in range(100))
"""Where MaxBoxAcc looks for its best threshold, as Choe et al. do."""


@dataclass(frozen=True)
class Localization:
    """Measurements by class, and in the mean where there are several.

    Attributes:
        protocol: `"coco"` or `"wsol"`.
        rows: For each class and threshold, which is `None` for given detections, the measures by
            name; NaN where undefined. Fractions, but for `at`, a threshold.
        source: What was measured, as in `evaluation`.
    """

    protocol: str
    rows: tuple[tuple[str, float | None, dict[str, float]], ...]
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Names the protocol."""
        return f"Protocol {self.protocol}, percent"

    def to_json(self) -> str:
        """Returns `evaluation.json` as in `evaluation`, each row with its measures by name."""
        rows = [
            {
                "class": name,
                "threshold": threshold,
                **{key: None if math.isnan(each) else each for key, each in measures.items()},
            }
            for name, threshold, measures in self.rows
        ]
        content = {
            "schema": SCHEMA,
            "kgradcam": __version__,
            "protocol": {"name": self.protocol},
            "source": dict(self.source),
            "rows": rows,
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def to_csv(self) -> str:
        """Returns the rows as comma-separated values."""
        header, _ = self.table()
        lines = [
            [name, "" if threshold is None else f"{threshold:g}", *map(str, measures.values())]
            for name, threshold, measures in self.rows
        ]
        return "\n".join(",".join(line) for line in [header, *lines]) + "\n"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns a header and lines of text, a line for each class and threshold."""
        header = ["class", "threshold", *self.rows[0][2]]
        lines = [
            [
                name,
                "given" if threshold is None else f"{threshold:g}",
                *(_cell(key, value) for key, value in measures.items()),
            ]
            for name, threshold, measures in self.rows
        ]
        return header, lines

    def to_markdown(self) -> str:
        """Returns the table as Markdown, below a line that names the protocol."""
        return f"{self.title}.\n\n{markdown(*self.table())}"


def _cell(key: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:g}" if key == "at" else f"{100 * value:.2f}"


def evaluate_run(
    run: Run,
    protocol: str,
    thresholds: Sequence[float] | None = None,
    radii: Sequence[int] | None = None,
    rows: str = "all",
    ignore_difficult: bool = False,
    box_options: BoxOptions | None = None,
    quiet: bool = True,
) -> Localization:
    """Measures a run by `"coco"` or `"wsol"`.

    Args:
        run: The run.
        protocol: Which.
        thresholds: Heat thresholds. Default: the run's own, or those of other rules.
        radii: The smoothing radius, one. Default: that of the box options.
        rows: Which boxes of each image and class count; see `records.keep_rows`.
        ignore_difficult: For `"coco"`, see `metrics.coco`; `"wsol"` always ignores them.
        box_options: How heatmaps become boxes, otherwise. Default: the run's own.
        quiet: Shows no progress on stderr.
    """
    box_options = run.options if box_options is None else box_options
    thresholds = run.default_thresholds(box_options) if thresholds is None else thresholds
    radius = box_options.smooth_radius if radii is None else radii[0]
    wanted = sorted({*thresholds, *THRESHOLDS}) if protocol == "wsol" else thresholds
    with progress.bar("boxes", run.info["counts"]["heatmaps"], "heatmaps", quiet) as advance:
        drawn = run.detections(wanted, [radius], box_options, advance)
    found = {threshold: keep_rows(drawn[radius, threshold], rows) for threshold in wanted}
    truth = run.ground_truth
    measured: dict[float, dict[str, dict[str, float]]]
    if protocol == "coco":
        measured = {
            threshold: evaluate_coco(truth, found[threshold], ignore_difficult)
            for threshold in thresholds
        }
    else:
        of_heat = _of_heat(run)
        searched = {threshold: found[threshold] for threshold in THRESHOLDS}
        of_maps = {
            name: {**_of_maps(truth, searched, i), **of_heat[name]}
            for i, name in enumerate(truth.categories, start=1)
        }
        measured = {
            threshold: _with_mean(
                {
                    name: {**_of_boxes(truth, found[threshold], i), **of_maps[name]}
                    for i, name in enumerate(truth.categories, start=1)
                }
            )
            for threshold in thresholds
        }
    names = list(measured[thresholds[0]])
    return Localization(
        protocol,
        tuple(
            (name, threshold, measured[threshold][name])
            for name in names
            for threshold in thresholds
        ),
        {**describe(run, rows), "radius": radius},
    )


def evaluate_detections(
    ground_truth: GroundTruth,
    detections: Detections,
    protocol: str,
    ignore_difficult: bool = False,
) -> Localization:
    """Measures anyone's detections by `"coco"` or `"wsol"`; without heatmaps, as far as boxes go.

    Args:
        ground_truth: The annotated boxes.
        detections: The predicted ones.
        protocol: Which.
        ignore_difficult: As for `evaluate_run`.
    """
    if protocol == "coco":
        measured = evaluate_coco(ground_truth, detections, ignore_difficult)
    else:
        measured = _with_mean(
            {
                name: _of_boxes(ground_truth, detections, i)
                for i, name in enumerate(ground_truth.categories, start=1)
            }
        )
    return Localization(
        protocol,
        tuple((name, None, each) for name, each in measured.items()),
        {"images": len(ground_truth.images)},
    )


def _of_boxes(truth: GroundTruth, found: Detections, category_id: int) -> dict[str, float]:
    return {
        "CorLoc": wsol.corloc(truth, found, category_id),
        "GT-known Loc": wsol.gt_known_loc(truth, found, category_id),
    }


def _of_maps(
    truth: GroundTruth, searched: Mapping[float, Detections], category_id: int
) -> dict[str, float]:
    best, threshold = wsol.max_box_acc(truth, searched, category_id)
    return {
        "MaxBoxAcc": best,
        "at": threshold,
        "MaxBoxAccV2": wsol.max_box_acc_v2(truth, searched, category_id),
    }


def _of_heat(run: Run) -> dict[str, dict[str, float]]:
    """The pointing game, over images with an object that is not difficult; PxAP and mask IoU."""
    truth = run.ground_truth
    images = {image.id: image for image in truth.images}
    masks = _mask_folder(run)
    hits: dict[str, list[bool]] = {name: [] for name in truth.categories}
    pixels = {name: PixelCounts() for name in truth.categories}
    for record in run.heatmaps():
        image, name = images[record.image_id], truth.categories[record.category_id - 1]
        heatmap = normalize(record.heatmap, (image.width, image.height))
        rows = truth.image_ids == record.image_id
        rows &= (truth.category_ids == record.category_id) & ~truth.difficult
        if rows.any():
            hits[name].append(pointing_hit(heatmap, truth.boxes[rows]))
        if masks is not None and name in voc.CLASSES:
            path = masks.mask_path(Path(image.file_name).stem)
            if path.is_file():
                pixels[name].add(heatmap, *voc.class_mask(read_labels(path), name))
    return {
        name: {
            "pointing": sum(each) / len(each) if each else math.nan,
            **(_of_pixels(pixels[name]) if masks is not None else {}),
        }
        for name, each in hits.items()
    }


def _of_pixels(counts: PixelCounts) -> dict[str, float]:
    return {"PxAP": counts.pixel_ap(), "mask IoU": counts.best_iou()[0]}


def _mask_folder(run: Run) -> VocFolder | None:
    """The folder of the run's dataset, if it is one with masks."""
    path = Path(run.info["dataset"]["name"])
    if not path.is_dir():
        return None
    folder = VocFolder(path)
    return folder if (folder.root / "SegmentationClass").is_dir() else None


def _with_mean(by_class: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    if len(by_class) < 2:
        return by_class
    means = {
        key: float(mean_over_classes([np.array(each[key]) for each in by_class.values()]))
        for key in next(iter(by_class.values()))
        if key != "at"
    }
    at = {"at": math.nan} if "at" in next(iter(by_class.values())) else {}
    order = list(next(iter(by_class.values())))
    means = {key: {**means, **at}[key] for key in order}
    return {**by_class, "mean": means}
