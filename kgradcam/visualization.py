"""Pictures of a run and of single images: chooses what to show, and hands it to `pictures`."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kgradcam.boxes import normalize
from kgradcam.datasets import open_dataset
from kgradcam.errors import UserError
from kgradcam.images import read_image
from kgradcam.methods import find_method
from kgradcam.models import Classifier
from kgradcam.pictures import ExplanationRow, Panel, draw_explanations, draw_gallery
from kgradcam.runs import ClassHeatmap, Run
from kgradcam.targets import parse_target

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
    threshold = max(run.thresholds) if threshold is None else threshold
    chosen = _choose_heatmaps(run, count, seed)
    truth, found = run.ground_truth, run.detections([threshold])[threshold]
    source = run.info["dataset"]
    dataset = open_dataset(source["name"], source["split"], data_dir)
    by_name = {example.file_name: example for example in dataset.examples}
    images = {image.id: image for image in truth.images}
    names = [images[i].file_name for i in chosen]
    examples = [by_name[name] for name in names if name in by_name]
    photographs = {
        batch[0].file_name: decoded[0] for batch, decoded in dataset.batches(examples, 1)
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


def explain_images(
    paths: Sequence[Path],
    classifier: Classifier,
    classes: Sequence[str] = (),
    layer: str | None = None,
    image_size: int | None = None,
    method: str = "gradcam",
) -> tuple["Figure", list[list[tuple[str, float]]]]:
    """Draws pictures beside the heatmaps of some classes.

    Args:
        paths: Image files.
        classifier: The model to explain.
        classes: What to explain, as `targets.parse_target` reads it. Default: the top class of
            each picture.
        layer: The layer to explain. Default: see `GradCAM`.
        image_size: Side of the squares that images are resized to; `None` keeps native sizes.
        method: One of `methods.METHODS`.

    Returns:
        A figure with a row for each picture, and for each picture the explained classes with their
        probabilities.

    Raises:
        UserError: A picture cannot be read, or a class is unknown.
    """
    count = classifier.model.output_shape[-1]
    targets = [parse_target(text, classifier.class_names, count) for text in classes]
    cam = find_method(method)(classifier.model, layer, preprocess=classifier.preprocess)
    rows, named = [], []
    for path in paths:
        photograph = read_image(path)
        height, width = photograph.shape[:2]
        seen = photograph if image_size is None else read_image(path, image_size)
        explanation = cam(seen[np.newaxis], classes=targets or None)
        names = list(classes) or [_class_name(classifier, explanation.classes[0][0])]
        probabilities = [float(each) for each in explanation.probabilities[0]]
        rows.append(
            ExplanationRow(
                image=photograph,
                title=path.name,
                heatmaps=np.stack(
                    [normalize(each, (width, height)) for each in explanation.heatmaps[0]]
                ),
                heatmap_titles=[
                    f"{name}  {each:.1%}" for name, each in zip(names, probabilities, strict=True)
                ],
            )
        )
        named.append(list(zip(names, probabilities, strict=True)))
    return draw_explanations(rows), named


def _class_name(classifier: Classifier, class_index: object) -> str:
    if classifier.class_names is None or not isinstance(class_index, int):
        return f"class {class_index}"
    return classifier.class_names[class_index]
