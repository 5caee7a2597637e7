"""Pictures of a run and of single images: chooses what to show, and hands it to `pictures`."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kgradcam.boxes.normalization import Heatmap, normalize
from kgradcam.data.images import read_image
from kgradcam.errors import UserError
from kgradcam.heatmaps.frozen import FREEZE_AFTER
from kgradcam.heatmaps.methods import find_method
from kgradcam.heatmaps.scores import ClassTarget
from kgradcam.metrics.faithfulness import measure
from kgradcam.models.class_targets import parse_target
from kgradcam.models.classifier import Classifier
from kgradcam.pictures.drawing import ExplanationRow, Panel, draw_explanations, draw_gallery
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
) -> "Figure":
    """Draws random images of a run with their heatmaps, annotated and predicted boxes.

    Args:
        run: The run; its images are read from its dataset.
        threshold: The heat threshold of the boxes. Default: the run's highest.
        count: How many images, at most. Of an image with several classes one is drawn.
        seed: For the choice.
        data_dir: Where tensorflow-datasets keeps its data.

    Returns:
        A figure.

    Raises:
        UserError: The dataset is not there any more, or an image of the run is not, or is damaged.
    """
    from kgradcam.data.dataset import open_dataset  # brings tensorflow-datasets

    threshold = max(run.thresholds) if threshold is None else threshold
    chosen = _choose_heatmaps(run, count, seed)
    truth, found = run.ground_truth, next(iter(run.detections([threshold]).values()))
    source = run.info["dataset"]
    dataset = open_dataset(source["name"], source["split"], data_dir)
    by_name = {example.file_name: example for example in dataset.examples}
    images = {image.id: image for image in truth.images}
    names = [images[i].file_name for i in chosen]
    examples = [by_name[name] for name in names if name in by_name]
    photographs = {
        example.file_name: image
        for batch in dataset.batches(examples, 1)
        for example, image in zip(batch.examples, batch.images, strict=True)
    }
    for name in names:
        if name not in photographs:
            raise UserError(f"{source['name']} does not hold a readable {name} any more.")
    panels = []
    for image_id, record in chosen.items():
        image = images[image_id]
        of_truth = (truth.image_ids == image_id) & (truth.category_ids == record.category_id)
        of_found = (found.image_ids == image_id) & (found.category_ids == record.category_id)
        class_name = truth.categories[record.category_id - 1]
        panels.append(
            Panel(
                image=photographs[image.file_name],
                heatmap=normalize(record.heatmap, (image.width, image.height)),
                title=f"{class_name} {record.probability:.0%}  {Path(image.file_name).stem}",
                ground_truth=truth.boxes[of_truth],
                predictions=found.boxes[of_found],
                scores=found.scores[of_found],
            )
        )
    model = run.info["model"]["name"]
    title = f"{model}, {source['name']} {source['split']}, threshold {threshold:g}"
    return draw_gallery(panels, title)


def _choose_heatmaps(run: Run, count: int, seed: int) -> dict[int, ClassHeatmap]:
    """Draws images at random, and for each one of its heatmaps; in the order of the images."""
    by_image: dict[int, list[ClassHeatmap]] = {}
    for record in run.heatmaps():
        by_image.setdefault(record.image_id, []).append(record)
    generator = random.Random(seed)
    image_ids = generator.sample(sorted(by_image), min(count, len(by_image)))
    return {
        image_id: generator.choice(sorted(by_image[image_id], key=lambda each: each.category_id))
        for image_id in sorted(image_ids)
    }


@dataclass(frozen=True)
class Finding:
    """What `explain_images` drew in one place.

    Attributes:
        image: The file.
        model: The model's name.
        method: The method's name.
        class_name: The explained class.
        probability: Of the class, in [0, 1].
        precision: The one that was used; see `GradCAM`.
        measures: By name, if asked for; see `metrics.faithfulness.MEASURES`.
    """

    image: Path
    model: str
    method: str
    class_name: str
    probability: float
    precision: str
    measures: dict[str, float]


def explain_images(
    paths: Sequence[Path],
    classifiers: Sequence[Classifier],
    classes: Sequence[str] = (),
    layer: str | Sequence[str] | None = None,
    image_size: int | None = None,
    methods: Sequence[str] = ("gradcam",),
    measured: bool = False,
    precision: str = "float32",
) -> tuple["Figure", list[Finding]]:
    """Draws pictures beside the heatmaps of some classes, by some methods, of some models.

    Args:
        paths: Image files.
        classifiers: The models to explain.
        classes: What to explain, as `targets.parse_target` reads it. Default: the top class of
            each picture by the first model.
        layer: The layer to explain, or several. Default: see `GradCAM`.
        image_size: Side of the squares that images are resized to; `None` keeps native sizes.
        methods: Of `methods.METHODS`.
        measured: Also measures how faithful the heatmaps are.
        precision: See `GradCAM`.

    Returns:
        A figure with a row for each picture, and what is in it, row by row.

    Raises:
        UserError: A picture cannot be read, a class is unknown, or models with different outputs
            are compared without one.
    """
    if not classes and len({each.model.output_shape[-1] for each in classifiers}) > 1:
        raise UserError(
            "Models with different outputs have no top class in common: give --class. Received: "
            + ", ".join(f"{each.name} of {each.model.output_shape[-1]}" for each in classifiers)
        )
    explainers = [
        (
            each,
            name,
            find_method(name)(
                each.model,
                layer,
                preprocess=each.preprocess,
                precision=precision,
                freeze=len(paths) >= FREEZE_AFTER,
            ),
        )
        for each in classifiers
        for name in methods
    ]
    rows, findings = [], []
    for path in paths:
        photograph = read_image(path, upright=True)
        seen = photograph if image_size is None else read_image(path, image_size, upright=True)
        seen = seen[np.newaxis]
        names = list(classes)
        top: list[ClassTarget] = []
        heatmaps: list[Heatmap] = []
        in_row: list[Finding] = []
        for classifier, method, explainer in explainers:
            count = classifier.model.output_shape[-1]
            targets = [parse_target(text, classifier.class_names, count) for text in classes]
            explanation = explainer(seen, classes=targets or top or None)
            if not names:
                top = explanation.classes[0]
                names = [_class_name(classifier, top[0])]
            measures = measure(explainer, seen, explanation) if measured else {}
            for j, name in enumerate(names):
                heatmaps.append(
                    _visible(explanation.heatmaps[0, j], photograph.shape[1::-1], seen.shape[1:3])
                )
                in_row.append(
                    Finding(
                        path,
                        classifier.name,
                        method,
                        name,
                        float(explanation.probabilities[0, j]),
                        explainer.precision,
                        {key: float(values[0, j]) for key, values in measures.items()},
                    )
                )
        titles = [_title(each, len(classifiers) > 1, len(methods) > 1) for each in in_row]
        rows.append(ExplanationRow(photograph, path.name, np.stack(heatmaps), titles))
        findings += in_row
    return draw_explanations(rows), findings


def _visible(heatmap: Heatmap, size: tuple[int, int], seen: tuple[int, ...]) -> Heatmap:
    if heatmap.shape == seen:  # single pixels outshine all others: draw up to the brightest percent
        heatmap = np.minimum(heatmap, np.quantile(heatmap, 0.99))
    return normalize(heatmap, size)


def _title(finding: Finding, with_model: bool, with_method: bool) -> str:
    """What tells a heatmap from its neighbours; a long class name is cut last."""
    parts = [finding.model] * with_model + [finding.method] * with_method
    if not parts:
        return f"{finding.class_name}  {finding.probability:.1%}"
    return f"{'  '.join(parts)}  {finding.probability:.1%}  {finding.class_name}"


def _class_name(classifier: Classifier, class_index: object) -> str:
    if classifier.class_names is None or not isinstance(class_index, int):
        return f"class {class_index}"
    return classifier.class_names[class_index]
