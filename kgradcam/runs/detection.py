"""From a dataset to a run folder: one heatmap per image and class, boxes for every threshold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kgradcam import progress
from kgradcam.data.dataset import Dataset
from kgradcam.data.examples import Example, files_digest
from kgradcam.data.splits import Summary
from kgradcam.errors import UserError
from kgradcam.heatmaps.explainer import Explainer
from kgradcam.heatmaps.methods import find_method
from kgradcam.models.classifier import Classifier
from kgradcam.models.network import require_model
from kgradcam.runs.configuration import PREDICTED, Configuration
from kgradcam.runs.describing import (
    describe,
    describe_model,
    draw,
    stop_if_strict,
    warn_if_large,
)
from kgradcam.runs.explaining import (
    Targets,
    classes_to_explain,
    explain_batch,
    load_model,
    make_explainer,
)
from kgradcam.runs.finished_parts import to_rows
from kgradcam.runs.partial_run import read_start
from kgradcam.runs.refining import BoxRefiner, require_default_boxes
from kgradcam.runs.run import Run
from kgradcam.runs.run_classes import run_targets
from kgradcam.runs.run_dataset import open_configured, open_to_resume
from kgradcam.runs.run_info import Counts, RunInfo, SkippedImage
from kgradcam.runs.run_writer import Report, RunWriter, write_run
from kgradcam.runs.tables import GroundTruth, Image

FREEZE_FROM = 1000
"""From this number of images on, a run freezes the weights in float32.

Freezing ResNet50 at 224 px takes seconds and pays off after about as many images.
"""

REDUCE_FROM = 500
"""With precision `"auto"`, the number of images from which on a run reduces the precision.

ResNet50 at 224 px pays off after some 100 images, smaller networks later.
"""


def detect(
    configuration: Configuration,
    folder: Path,
    *,
    data_dir: Path | None = None,
    force: bool = False,
    resume: bool = False,
    quiet: bool = True,
    report: Report = lambda line: None,
    refiner: BoxRefiner | None = None,
    opened: Classifier | None = None,
) -> Run:
    """Localizes classes on each image of a dataset, and writes a run folder.

    By default each image is explained for the classes annotated on it, difficult objects included
    (GT-known localization). With `presence="predicted"` each image of the split is explained for
    the classes that the model predicts, as in detection.

    Decoding, the model, and the drawing and writing of boxes run at the same time. A resumed run
    ends in the same bytes as one without interruption.

    Args:
        configuration: The options.
        folder: The run folder to be; it appears when the run is finished.
        data_dir: The folder of tensorflow-datasets.
        force: Replaces an existing run.
        resume: Resumes an interrupted run to this folder; see `interrupted_configuration`.
        quiet: Shows no progress on stderr.
        report: Called with a line of text on the layout, and on removed leftovers of a killed
            process.
        refiner: Makes the boxes, when all heatmaps are there. If that is interrupted, a resumed
            run begins them anew.
        opened: The model, if `open_model` has loaded it already.

    Returns:
        The run.

    Raises:
        UserError: An option names something unknown, no image has an object of the classes, the
            folder exists, or the run to resume has other options.
        UsageError: Options of boxes beside a refiner.
    """
    # Mistyped names are reported before any work.
    find_method(configuration.method)
    require_model(configuration.model)
    if refiner:
        require_default_boxes(configuration)
    with write_run(folder, force=force, resume=resume, report=report) as writer:
        if resume:
            options = asdict(configuration)
            del options["precision"]  # "auto" is resolved only when the images are counted
            refiner_info = asdict(refiner.info) if refiner else None
            writer.require_same({"configuration": options, "refiner": refiner_info})
        dataset = (
            open_to_resume(folder, read_start(folder).info, data_dir, quiet)
            if resume
            else open_configured(configuration, data_dir, quiet)
        )
        if not dataset.annotated:  # so there is nothing but what the model predicts
            configuration = replace(configuration, presence=PREDICTED)
        if not quiet:
            report(f"{dataset.name} is {dataset.description}: {len(dataset.examples)} images.")
        stop_if_strict(configuration, dataset.skipped)
        with progress.step(f"loading and tracing {configuration.model}", quiet):
            prepared = _prepare(configuration, dataset, load_model(configuration, opened))
        info = _describe(prepared, folder)
        if refiner:
            refiner.require_fitting(folder, info.model.digest, prepared.images.values())
            info = replace(info, refiner=refiner.info)
        writer.begin(info, data_dir)
        _explain_images(prepared, writer, quiet)
        return _finish(prepared, info, writer, refiner, quiet)


@dataclass(frozen=True)
class _Prepared:
    """The loaded parts of a run.

    Attributes:
        configuration: The options.
        dataset: The split.
        summary: The same without images.
        classifier: The model.
        explainer: Makes the heatmaps.
        targets: The classes of the run.
        examples: The images to explain.
        images: Their entries in `ground_truth.json`, by index in the dataset.
    """

    configuration: Configuration
    dataset: Dataset
    summary: Summary
    classifier: Classifier
    explainer: Explainer
    targets: Targets
    examples: list[Example]
    images: dict[int, Image]


def _prepare(configuration: Configuration, dataset: Dataset, classifier: Classifier) -> _Prepared:
    summary = dataset.summary()
    targets = run_targets(configuration, summary, classifier)
    examples = _choose_examples(dataset, targets, configuration)
    if configuration.image_size is None:
        largest = max(examples, key=lambda each: each.width * each.height)
        warn_if_large(largest.file_name, largest.width, largest.height)
    explainer = run_explainer(configuration, classifier, len(examples))
    images = {
        example.index: Image(i, example.file_name, example.width, example.height)
        for i, example in enumerate(examples, start=1)
    }
    return _Prepared(
        configuration, dataset, summary, classifier, explainer, targets, examples, images
    )


def _choose_examples(
    dataset: Dataset, targets: Targets, configuration: Configuration
) -> list[Example]:
    examples = [
        example
        for example in dataset.examples
        if classes_to_explain(example, targets, configuration)
    ]
    drawn = draw(len(examples), configuration)
    return examples if drawn is None else [examples[i] for i in drawn]


def run_explainer(configuration: Configuration, classifier: Classifier, images: int) -> Explainer:
    """Returns the explainer of a run, whose number of images decides on freezing."""
    if configuration.precision == "auto" and images < REDUCE_FROM:
        configuration = replace(configuration, precision="float32")
    # Frozen from the first image on or never: no result depends on where a run was interrupted.
    return make_explainer(configuration, classifier, images >= FREEZE_FROM)


def _explain_images(prepared: _Prepared, writer: RunWriter, quiet: bool) -> None:
    """Explains the images that the writer does not have yet."""
    configuration, images = prepared.configuration, prepared.images
    image_ids = {index: image.id for index, image in images.items()}
    finished = writer.done | set(writer.skipped)
    remaining = [each for each in prepared.examples if image_ids[each.index] not in finished]
    batches = prepared.dataset.batches(
        remaining, configuration.batch_size, configuration.image_size
    )
    with progress.bar("heatmaps", len(remaining), "images", quiet) as advance:
        for batch in batches:
            found = explain_batch(
                prepared.explainer, batch, prepared.targets, configuration, image_ids
            )
            stop_if_strict(configuration, [(each.file_name, why) for each, why in found.skipped])
            writer.add(
                [images[each.index] for each in found.explained],
                found.heatmaps,
                {image_ids[each.index]: why for each, why in found.skipped},
            )
            advance(len(batch.examples) + len(batch.damaged))
    writer.end_parts()


def _finish(
    prepared: _Prepared, info: RunInfo, writer: RunWriter, refiner: BoxRefiner | None, quiet: bool
) -> Run:
    names = {image.id: image.file_name for image in prepared.images.values()}
    skipped = [*prepared.dataset.skipped, *((names[i], why) for i, why in writer.skipped.items())]
    if not writer.done:
        name, reason = skipped[-1]
        raise UserError(
            f"None of the {len(prepared.examples)} images could be explained. {name}: {reason}"
        )
    explained = [
        each for each in prepared.examples if prepared.images[each.index].id in writer.done
    ]
    ground_truth = _ground_truth(explained, list(prepared.targets), prepared.images)
    info = replace(
        info,
        # The first batch decides these for some models: the fallback where a model cannot be
        # frozen, and the layer of a subclassed model.
        configuration=replace(info.configuration, precision=prepared.explainer.precision),
        model=replace(info.model, layer=prepared.explainer.layer),
        counts=Counts(len(explained), writer.heatmaps, len(ground_truth.boxes), len(skipped)),
        skipped=tuple(SkippedImage(name, why) for name, why in sorted(skipped)),
    )
    if refiner is None:
        return writer.finish(info, ground_truth)
    with progress.bar("refined boxes", writer.heatmaps, "heatmaps", quiet) as advance:
        boxes = refiner(
            writer.stored_heatmaps(),
            ground_truth.images,
            prepared.classifier,
            info.model.layer,
            prepared.dataset,
            advance,
        )
    return writer.finish(info, ground_truth, [[to_rows(boxes)]])


def _ground_truth(
    examples: Sequence[Example], categories: Sequence[str], images: dict[int, Image]
) -> GroundTruth:
    category_ids = {name: i for i, name in enumerate(categories, start=1)}
    rows = [
        (images[example.index].id, category_ids[name], box, difficult)
        for example in examples
        for name, box, difficult in zip(
            example.objects.names, example.objects.boxes, example.objects.difficult, strict=True
        )
        if name in category_ids
    ]
    return GroundTruth(
        images=tuple(images[example.index] for example in examples),
        categories=tuple(categories),
        image_ids=np.array([row[0] for row in rows], np.int64),
        category_ids=np.array([row[1] for row in rows], np.int64),
        boxes=np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        difficult=np.array([row[3] for row in rows], bool),
    )


def _describe(prepared: _Prepared, folder: Path) -> RunInfo:
    explainer = prepared.explainer
    return describe(
        replace(prepared.configuration, precision=explainer.precision),
        prepared.summary,
        files_digest(prepared.examples),
        describe_model(prepared.classifier, explainer.layer, prepared.targets),
        folder,
    )
