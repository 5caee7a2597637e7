"""Writes an export: labels, pictures and heatmaps in a new folder, which appears when complete."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from kgradcam import progress
from kgradcam.boxes.normalization import normalize
from kgradcam.data.images import MAX_IMAGE_BYTES
from kgradcam.errors import UserError, require_known
from kgradcam.export.formats import FORMATS
from kgradcam.export.labels import Labels, labels_of_run
from kgradcam.files import move, partial_path, read_bytes
from kgradcam.runs.dataset_folder import locate_dataset
from kgradcam.runs.run import Run

_MARK = "export.json"
_PICTURES = ("link", "copy", "none")


def export_run(
    run: Run,
    folder: Path,
    format_name: str,
    *,
    min_score: float = 0.0,
    threshold: float | None = None,
    order: str = "name",
    pictures: str = "link",
    prefix: str | None = None,
    heatmaps: bool = False,
    dataset: str | None = None,
    data_dir: Path | None = None,
    force: bool = False,
    quiet: bool = True,
) -> Labels:
    """Writes the boxes of a run in the format of a labelling tool.

    Args:
        run: The run.
        folder: The folder to write. It appears when it is complete.
        format_name: One of `FORMATS`.
        min_score: The lowest score of a box.
        threshold: The heat threshold, one of the run's. Default: its highest.
        order: `"name"`, or `"doubt"` for the most doubtful images first.
        pictures: `"link"`, `"copy"`, or `"none"`, which only names them.
        prefix: The text before the name of each image. Default: that of the format.
        heatmaps: Also writes each heatmap as an 8-bit PNG of the size of its image.
        dataset: The dataset, if it was moved. Default: that of the run.
        data_dir: The folder of tensorflow-datasets.
        force: Replaces an older export.
        quiet: Shows no progress on stderr.

    Returns:
        The labels that were written.

    Raises:
        UserError: The folder exists or is inside the dataset, the dataset is gone, or an option is
            unknown.
    """
    for name, value, known in (("format", format_name, FORMATS), ("images", pictures, _PICTURES)):
        require_known(name, value, known)
    _require_place(run, folder, pictures, dataset, force)
    labels = labels_of_run(run, min_score, threshold, order)
    chosen = FORMATS[format_name]
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(folder)
    try:
        partial.mkdir()
        chosen.write(labels, partial, chosen.prefix if prefix is None else prefix)
        if pictures != "none":
            place = partial / chosen.images
            _write_pictures(run, labels, place, pictures, dataset, data_dir, quiet)
        if heatmaps:
            _write_heatmaps(run, labels, partial / "heatmaps", quiet)
        content = {
            "format": format_name,
            "source": labels.source,
            "images": len(labels.images),
            "boxes": labels.images.boxes,
            "min_score": min_score,
            "order": order,
        }
        (partial / _MARK).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return labels


def _require_place(run: Run, folder: Path, pictures: str, dataset: str | None, force: bool) -> None:
    places = [run.folder]
    if pictures != "none":
        places.append(Path(locate_dataset(run, dataset)))
    for place in places:
        if place.is_dir() and place.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise UserError(f"--out {folder} is inside {place}, which stays as it is.")
    if not folder.exists():
        return
    if folder.is_symlink() or not (folder / _MARK).is_file():
        raise UserError(f"{folder} is already there and is no export. Choose another --out.")
    if not force:
        raise UserError(f"{folder} is already there. Choose another --out, or give --force.")


def _write_pictures(
    run: Run,
    labels: Labels,
    folder: Path,
    how: str,
    dataset: str | None,
    data_dir: Path | None,
    quiet: bool,
) -> None:
    from kgradcam.runs.run_dataset import open_run_dataset  # imports tensorflow

    opened = open_run_dataset(run, dataset, data_dir, quiet)
    targets = {each.image.file_name: each.name for each in labels.images}
    examples = [each for each in opened.examples if each.file_name in targets]
    if len(examples) < len(targets):
        missing = min(set(targets) - {each.file_name for each in examples})
        raise UserError(f"{opened.name} no longer holds {missing}. --images none only names it.")
    by_index = {each.index: each for each in examples}
    with progress.bar("pictures", len(examples), "images", quiet) as advance:
        for index, encoded in opened.encoded(examples).as_numpy_iterator():
            example = by_index[int(index)]
            target = folder / targets[example.file_name]
            target.parent.mkdir(parents=True, exist_ok=True)
            if how == "link" and example.path:
                _link(example.path, target)
            else:  # a prepared tensorflow-dataset has no files to link to
                target.write_bytes(
                    read_bytes(example.path, MAX_IMAGE_BYTES) if example.path else encoded
                )
            advance(1)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError as error:
        raise UserError(
            f"{target.name} cannot be linked ({error.strerror}). Give --images copy."
        ) from error


def _write_heatmaps(run: Run, labels: Labels, folder: Path, quiet: bool) -> None:
    names = {each.image.id: (each.name, each.image) for each in labels.images}
    categories: Sequence[str] = run.ground_truth.categories
    with progress.bar("heatmaps", run.info.counts.heatmaps, "heatmaps", quiet) as advance:
        for record in run.heatmaps():
            image_name, image = names[record.image_id]
            heat: Any = normalize(record.heatmap, image.size)
            name = categories[record.category_id - 1]
            class_name = "".join(letter if letter.isalnum() else "_" for letter in name)
            path = folder / f"{image_name}.{class_name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(np.round(255 * heat).astype(np.uint8)).save(path)
            advance(1)
