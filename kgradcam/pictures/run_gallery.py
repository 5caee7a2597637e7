"""Draws images of a run with their heatmaps and boxes, for `kgradcam visualize`."""

import random
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kgradcam import progress
from kgradcam.boxes.normalization import normalize
from kgradcam.data.names import short_name
from kgradcam.errors import UserError
from kgradcam.pictures.blending import COLORMAP
from kgradcam.pictures.drawing import Panel, draw_gallery
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def visualize_run(
    run: Run,
    threshold: float | None = None,
    count: int = 10,
    seed: int = 0,
    data_dir: Path | None = None,
    dataset: str | None = None,
    colormap: str = COLORMAP,
) -> "Figure":
    """Draws randomly chosen images of a run with their heatmaps, annotated and predicted boxes.

    Args:
        run: The run. Its photographs are read from its dataset.
        threshold: The heat threshold of the boxes, in [0, 1]. Default: the run's highest.
        count: The number of images, at most. An image with several classes is drawn for one.
        seed: The random seed of the choice.
        data_dir: The folder of tensorflow-datasets.
        dataset: The dataset, if it was moved. Default: that of the run.
        colormap: See `overlay`.

    Returns:
        A figure; see `figures.save`.

    Raises:
        UserError: The dataset, or a chosen image of it, is missing or unreadable.
    """
    threshold = max(run.thresholds) if threshold is None else threshold
    chosen = _choose_heatmaps(run, count, seed)
    if not chosen:
        raise UserError(f"{run.folder} has no heatmap to draw: no class was found on any image.")
    truth, found = run.ground_truth, next(iter(run.detections([threshold]).values()))
    images = {image.id: image for image in truth.images}
    names = [images[i].file_name for i in chosen]
    photographs = dict(read_photographs(run, names, data_dir, dataset=dataset))
    panels = []
    for image_id, record in chosen.items():
        image = images[image_id]
        of_truth = (truth.image_ids == image_id) & (truth.category_ids == record.category_id)
        of_found = (found.image_ids == image_id) & (found.category_ids == record.category_id)
        class_name = truth.categories[record.category_id - 1]
        panels.append(
            Panel(
                image=photographs[image.file_name],
                heatmap=normalize(record.heatmap, image.size),
                title=f"{class_name} {record.probability:.0%}  {Path(image.file_name).stem}",
                ground_truth=truth.boxes[of_truth],
                predictions=found.boxes[of_found],
                scores=found.scores[of_found],
            )
        )
    source = short_name(run.info.dataset.name)
    title = f"{short_name(run.info.model.name)}, {source} {run.info.split}"
    return draw_gallery(panels, f"{title}, threshold {threshold:g}", colormap)


def read_photographs(
    run: Run,
    file_names: Iterable[str],
    data_dir: Path | None = None,
    quiet: bool = True,
    dataset: str | None = None,
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Reads images of a run from its dataset, one at a time.

    Args:
        run: The run.
        file_names: The images to read; each is read once.
        data_dir: The folder of tensorflow-datasets.
        quiet: Shows no progress on stderr.
        dataset: The dataset, if it was moved. Default: that of the run.

    Yields:
        A file name and its image, uint8 `[height, width, 3]`, RGB, in the order of the dataset.

    Raises:
        UserError: The dataset is missing, or one of the images is missing, unreadable, or of
            another size than in the run.
    """
    from kgradcam.runs.run_dataset import open_run_dataset  # imports tensorflow

    missing = set(file_names)
    source = open_run_dataset(run, dataset, data_dir, quiet, missing)
    sizes = {
        each.file_name: (each.width, each.height)
        for each in run.ground_truth.images
        if each.file_name in missing
    }
    examples = [example for example in source.examples if example.file_name in missing]
    for each in examples:
        if (each.width, each.height) != sizes[each.file_name]:
            width, height = sizes[each.file_name]
            raise UserError(
                f"{each.file_name} of {source.name} has {each.width}x{each.height} pixels. The run "
                f"was made from an image of {width}x{height}, so its boxes do not fit."
            )
    with progress.bar("pictures", len(missing), "images", quiet) as advance:
        for batch in source.batches(examples, 1):
            for example, image in zip(batch.examples, batch.images, strict=True):
                missing.discard(example.file_name)
                yield example.file_name, image
            advance(1)
    if missing:
        raise UserError(
            f"{source.name} has no readable image {min(missing)}, which the run was made from. "
            "Restore the file, or run `kgradcam detect` again."
        )


def _choose_heatmaps(run: Run, count: int, seed: int) -> dict[int, ClassHeatmap]:
    """Samples images, and one heatmap of each; ordered by image id."""
    keys = ((record.image_id, record.category_id) for record in run.heatmaps())
    ids = np.fromiter(chain.from_iterable(keys), np.int64).reshape(-1, 2)
    generator = random.Random(seed)
    image_ids = np.unique(ids[:, 0]).tolist()
    chosen = {}
    for image_id in sorted(generator.sample(image_ids, min(count, len(image_ids)))):
        of_image = np.flatnonzero(ids[:, 0] == image_id)
        in_order = of_image[np.argsort(ids[of_image, 1], kind="stable")]
        chosen[generator.choice(in_order.tolist())] = image_id
    found = {i: record for i, record in enumerate(run.heatmaps()) if i in chosen}
    return {image_id: found[i] for i, image_id in chosen.items()}
