"""Faithfulness of the heatmaps of a run: loads its dataset and its model again.

Needs TensorFlow, unlike the rest of this package.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam import progress
from kgradcam.data.images import to_channels
from kgradcam.errors import UserError
from kgradcam.evaluation.box_tables import describe
from kgradcam.evaluation.results import Result
from kgradcam.evaluation.rows import MEAN, Row
from kgradcam.heatmaps.explainer import Explanation
from kgradcam.metrics.bootstrap import mean_of_rows, with_mean
from kgradcam.metrics.faithfulness import measure
from kgradcam.models.class_targets import Target
from kgradcam.runs.explaining import load_model, make_explainer
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.run_dataset import open_run_dataset
from kgradcam.runs.tables import Image


def faithfulness_of_run(
    run: Run,
    *,
    limit: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    dataset: str | None = None,
    trusted: bool = False,
    quiet: bool = True,
) -> Result:
    """Measures how faithful the stored heatmaps of a run are to its model.

    One heatmap takes about 70 forward passes.

    Args:
        run: The run; `run.json` names its dataset and its model.
        limit: The number of images to measure at most, drawn at random. Default: all.
        seed: The random seed of that draw.
        data_dir: The folder of tensorflow-datasets.
        dataset: The dataset, if it was moved. Default: that of the run.
        trusted: Whether the model may execute code of its own, as Lambda layers do. The setting
            in `run.json` is ignored, since the file may come from anyone.
        quiet: Shows no progress on stderr.

    Returns:
        A row for each class with the mean of `metrics.faithfulness.MEASURES` over its heatmaps;
        NaN where undefined. Images whose objects of a class are all difficult do not count for
        `pointing` and `energy`.

    Raises:
        UserError: The dataset, an image of the run or its model no longer exists.
    """
    made_by = replace(
        run.info.configuration,
        layer=run.info.model.layer,
        precision="float32",
        trusted=trusted,
        names=None,  # the outputs of the classes are in run.json
    )
    opened = open_run_dataset(run, dataset, data_dir, quiet)
    explainer = make_explainer(made_by, load_model(made_by))
    images = {image.file_name: image for image in run.ground_truth.images}
    examples = [example for example in opened.examples if example.file_name in images]
    if len(examples) < len(images):
        missing = set(images) - {example.file_name for example in examples}
        raise UserError(f"{opened.name} no longer holds {min(missing)}.")
    records: dict[int, list[ClassHeatmap]] = {}
    for record in run.heatmaps():
        records.setdefault(record.image_id, []).append(record)
    examples = [example for example in examples if images[example.file_name].id in records]
    if limit is not None and limit < len(examples):
        examples = random.Random(seed).sample(examples, limit)
    outputs = list(run.info.model.outputs.values())
    found: dict[int, list[dict[str, float]]] = {}
    with progress.bar("measures", len(examples), "images", quiet) as advance:
        batches = opened.batches(examples, made_by.batch_size, made_by.image_size)
        for batch, pictures, damaged in batches:
            for example, reason in damaged:
                raise UserError(f"{example.file_name}, an image of the run, is damaged: {reason}")
            heatmaps = [records[images[example.file_name].id] for example in batch]
            most = max(map(len, heatmaps))
            # All images of a batch need the same number of classes, so the last one is repeated.
            padded = [[*row, *row[-1:] * (most - len(row))] for row in heatmaps]
            explanation = _explanation(padded, outputs)
            regions = [
                [_boxes(run, images[example.file_name], record, pictures) for record in row]
                for example, row in zip(batch, padded, strict=True)
            ]
            inputs = to_channels(pictures, explainer.model.input_shape[-1])
            measures = measure(explainer, inputs, explanation, regions)
            for i, row in enumerate(heatmaps):
                for j, record in enumerate(row):
                    values = {name: float(each[i, j]) for name, each in measures.items()}
                    if not len(regions[i][j]):
                        values |= {"pointing": math.nan, "energy": math.nan}
                    found.setdefault(record.category_id, []).append(values)
            advance(len(batch))
    names = run.ground_truth.categories
    means = {names[i - 1]: mean_of_rows(found[i]) for i in sorted(found)}
    counts = {names[i - 1]: len(found[i]) for i in found}
    counts[MEAN] = sum(counts.values())
    rows = [
        Row(name, values, {"heatmaps": counts[name]}) for name, values in with_mean(means).items()
    ]
    source = {**describe(run), "images": len(examples), "seed": seed}
    title = f"Faithfulness of {made_by.method}"
    return Result(title, {"name": "faithfulness"}, tuple(rows), source, percent=False)


def _explanation(rows: Sequence[Sequence[ClassHeatmap]], outputs: Sequence[Target]) -> Explanation:
    return Explanation(
        heatmaps=np.array([[record.heatmap for record in row] for row in rows]),
        scores=np.array([[record.score for record in row] for row in rows], np.float32),
        probabilities=np.array(
            [[record.probability for record in row] for row in rows], np.float32
        ),
        classes=[[outputs[record.category_id - 1] for record in row] for row in rows],
    )


def _boxes(
    run: Run, image: Image, record: ClassHeatmap, pictures: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """The boxes of a class in pixels of the resized image; none if all objects are difficult."""
    truth = run.ground_truth
    rows = (truth.image_ids == image.id) & (truth.category_ids == record.category_id)
    if truth.difficult[rows].all():
        return np.zeros((0, 4))
    height, width = pictures.shape[1:3]
    scale = np.array([width / image.width, height / image.height])
    boxes: npt.NDArray[np.float64] = truth.boxes[rows] * np.tile(scale, 2)
    return boxes
