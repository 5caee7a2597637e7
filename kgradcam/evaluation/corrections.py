"""Boxes of a run against corrected ones: images match by file name, classes by name."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from kgradcam.errors import UserError, did_you_mean
from kgradcam.evaluation.box_tables import BoxTables
from kgradcam.runs.tables import Detections, GroundTruth, Image

_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # Label Studio's, before the name of an uploaded file


def against(boxes: BoxTables, corrected: GroundTruth, report: Callable[[str], None]) -> BoxTables:
    """Returns the boxes of a run with other ground truth.

    Only images in both count, and only classes of the run.

    Args:
        boxes: The boxes of a run.
        corrected: The ground truth.
        report: Called with a line about images or classes that do not count.

    Raises:
        UserError: No image or no class is in both, a name fits several images, or an image has
            another size.
    """
    old = boxes.ground_truth
    images = _matched(old.images, corrected.images)
    places = {name: i for i, name in enumerate(old.categories, start=1)}
    classes = {
        i: places[name] for i, name in enumerate(corrected.categories, start=1) if name in places
    }
    if not images:
        raise UserError(
            f"No image of the ground truth is in the run: it has "
            f"{corrected.images[0].file_name if corrected.images else 'none'!r}, the run "
            f"{old.images[0].file_name if old.images else 'none'!r}."
        )
    if not classes:
        first = next(iter(corrected.categories), "none")
        raise UserError(
            f"No class of the ground truth is in the run: it has {first!r}, the run "
            f"{', '.join(old.categories[:20])}.{did_you_mean(first, old.categories)}"
        )
    if others := [name for name in corrected.categories if name not in places]:
        report(f"Classes of the ground truth that the run lacks: {', '.join(others)}.")
    counted = len(set(images.values()))
    if counted < max(len(old.images), len(corrected.images)):
        report(
            f"{counted} images count: {len(corrected.images)} in the ground truth, "
            f"{len(old.images)} in the run."
        )
    keep = np.isin(corrected.image_ids, list(images))
    keep &= np.isin(corrected.category_ids, list(classes))
    kept = set(images.values())
    truth = GroundTruth(
        images=tuple(each for each in old.images if each.id in kept),
        categories=old.categories,
        image_ids=np.array([images[i] for i in corrected.image_ids[keep].tolist()], np.int64),
        category_ids=np.array(
            [classes[i] for i in corrected.category_ids[keep].tolist()], np.int64
        ),
        boxes=corrected.boxes[keep],
        difficult=corrected.difficult[keep],
        crowd=corrected.crowd[keep],
    )

    def on_them(found: Detections) -> Detections:
        return found.select(np.isin(found.image_ids, list(kept)))

    tables = boxes.tables.changed(on_them)
    source = {**boxes.source, "images": counted}
    # Without the run: its random heatmaps would be drawn on images that do not count.
    return replace(boxes, ground_truth=truth, tables=tables, source=source, run=None)


def _matched(old: tuple[Image, ...], new: tuple[Image, ...]) -> dict[int, int]:
    """The id in the run of each image: by its path, else by its name, else by its stem."""
    found: dict[int, int] = {}
    for key in (_path, _name, _stem):
        known: dict[str, list[Image]] = {}
        for image in old:
            known.setdefault(key(image.file_name), []).append(image)
        for image in new:
            fitting = known.get(key(image.file_name), [])
            if image.id in found or not fitting:
                continue
            if len(fitting) > 1:
                names = " and ".join(each.file_name for each in fitting[:2])
                raise UserError(f"{image.file_name!r} fits several images of the run: {names}.")
            size = image.size
            if all(size) and size != fitting[0].size:
                raise UserError(
                    f"{image.file_name!r} has {size[0]}x{size[1]} pixels in the ground truth, and "
                    f"{fitting[0].width}x{fitting[0].height} in the run."
                )
            found[image.id] = fitting[0].id
    if len(set(found.values())) < len(found):
        raise UserError("Several images of the ground truth fit one image of the run.")
    return found


def _path(name: str) -> str:
    return name.replace("\\", "/")


def _name(name: str) -> str:
    return _UPLOAD.sub("", PurePosixPath(_path(name)).name)


def _stem(name: str) -> str:
    return PurePosixPath(_name(name)).stem
