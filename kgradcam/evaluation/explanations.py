"""How good the heatmaps of a run are: its dataset and its model once more, measures by class."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kgradcam import progress
from kgradcam.data.dataset import open_dataset
from kgradcam.errors import UserError
from kgradcam.evaluation.markdown import markdown
from kgradcam.heatmaps.gradcam import Explanation
from kgradcam.metrics.bootstrap import mean_over_classes
from kgradcam.metrics.faithfulness import measure
from kgradcam.runs.detection import load_model, make_explainer, read_configuration
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.tables import Image


@dataclass(frozen=True)
class Scorecard:
    """Means over the heatmaps of each class.

    Attributes:
        method: What made the heatmaps.
        rows: By class: how many heatmaps, and their measures by name (see
            `metrics.faithfulness.MEASURES`); NaN where none could be taken. With several classes,
            `mean` is that of the classes.
    """

    method: str
    rows: dict[str, tuple[int, dict[str, float]]]

    def to_json(self) -> str:
        """Returns one JSON object with `method` and `rows`; undefined values are null."""
        rows = [
            {
                "class": name,
                "heatmaps": count,
                **{key: None if math.isnan(each) else each for key, each in measures.items()},
            }
            for name, (count, measures) in self.rows.items()
        ]
        return json.dumps({"method": self.method, "rows": rows}, indent=2)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns a header and lines of text, a line for each class."""
        header = ["class", "heatmaps", *next(iter(self.rows.values()))[1]]
        lines = [
            [name, str(count), *(_number(each) for each in measures.values())]
            for name, (count, measures) in self.rows.items()
        ]
        return header, lines

    def to_markdown(self) -> str:
        """Returns the table as Markdown, below a line that names the method."""
        return f"{self.title}.\n\n{markdown(*self.table())}"

    @property
    def title(self) -> str:
        """Names the method."""
        return f"Method {self.method}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def score_run(
    run: Run,
    *,
    limit: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    trusted: bool = False,
    quiet: bool = True,
) -> Scorecard:
    """Measures the stored heatmaps of a run; about 70 forward passes for each.

    Args:
        run: The run; its images and its model are loaded as it says.
        limit: How many images to take, at most, drawn at random.
        seed: For that draw.
        data_dir: Where tensorflow-datasets keeps its data.
        trusted: Lets the run's model run code of its own. What run.json says of that does not
            count, for anybody may have written it.
        quiet: Shows no progress on stderr.

    Returns:
        A `Scorecard`. Images whose objects of a class are all difficult do not count for
        `pointing` and `energy`.

    Raises:
        UserError: The dataset, an image of the run or its model is not there any more.
    """
    made_by = read_configuration(run.info, run.folder)
    dataset = open_dataset(made_by.dataset, made_by.split, data_dir, quiet)
    made_by = replace(
        made_by, layer=run.info["model"]["layer"], precision="float32", trusted=trusted
    )
    explainer = make_explainer(made_by, load_model(made_by))
    images = {image.file_name: image for image in run.ground_truth.images}
    examples = [example for example in dataset.examples if example.file_name in images]
    if len(examples) < len(images):
        missing = set(images) - {example.file_name for example in examples}
        raise UserError(f"{made_by.dataset} does not hold {min(missing)} any more.")
    records: dict[int, list[ClassHeatmap]] = {}
    for record in run.heatmaps():
        records.setdefault(record.image_id, []).append(record)
    examples = [example for example in examples if images[example.file_name].id in records]
    if limit is not None and limit < len(examples):
        examples = random.Random(seed).sample(examples, limit)
    outputs = [tuple(indices) for indices in run.info["model"]["outputs"].values()]
    found: dict[int, list[dict[str, float]]] = {}
    with progress.bar("measures", len(examples), "images", quiet) as advance:
        for batch, pictures, _ in dataset.batches(examples, made_by.batch_size, made_by.image_size):
            if not batch:
                continue
            rows = [records[images[example.file_name].id] for example in batch]
            most = max(map(len, rows))
            # All images of a batch need the same number of classes: the last one is repeated.
            padded = [[*row, *row[-1:] * (most - len(row))] for row in rows]
            explanation = _explanation(padded, outputs)
            regions = [
                [_boxes(run, images[example.file_name], record, pictures) for record in row]
                for example, row in zip(batch, padded, strict=True)
            ]
            measures = measure(explainer, pictures, explanation, regions)
            for i, row in enumerate(rows):
                for j, record in enumerate(row):
                    values = {name: float(each[i, j]) for name, each in measures.items()}
                    if not len(regions[i][j]):
                        values |= {"pointing": math.nan, "energy": math.nan}
                    found.setdefault(record.category_id, []).append(values)
            advance(len(batch))
    names = run.ground_truth.categories
    by_class = {names[i - 1]: (len(found[i]), _means(found[i])) for i in sorted(found)}
    if len(by_class) > 1:
        total = sum(count for count, _ in by_class.values())
        by_class["mean"] = (total, _means([means for _, means in by_class.values()]))
    return Scorecard(made_by.method, by_class)


def _explanation(
    rows: Sequence[Sequence[ClassHeatmap]], outputs: Sequence[tuple[int, ...]]
) -> Explanation:
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
    """The boxes of a class in the pixels of the picture; none if all its objects are difficult."""
    truth = run.ground_truth
    rows = (truth.image_ids == image.id) & (truth.category_ids == record.category_id)
    if truth.difficult[rows].all():
        return np.zeros((0, 4))
    height, width = pictures.shape[1:3]
    scale = np.array([width / image.width, height / image.height])
    boxes: npt.NDArray[np.float64] = truth.boxes[rows] * np.tile(scale, 2)
    return boxes


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        name: float(mean_over_classes([np.array(row[name]) for row in rows])) for name in rows[0]
    }
