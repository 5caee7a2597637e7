"""Runs a training: stages of epochs, a checkpoint after each epoch, and the final model folder."""

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from typing_extensions import override

from kgradcam import __version__, progress
from kgradcam.data.names import short_name
from kgradcam.devices import all_gpus
from kgradcam.errors import UserError
from kgradcam.heatmaps.default_layer import list_layers
from kgradcam.metrics.classification import classification_ap
from kgradcam.models.held_out import write_held_out
from kgradcam.models.model_card import write_card
from kgradcam.pictures.figures import drawable, save
from kgradcam.training.batches import LabelledImages, cache_features
from kgradcam.training.configuration import TrainingConfiguration
from kgradcam.training.curves import draw_history
from kgradcam.training.data import preprocessing_name
from kgradcam.training.event_log import write_scalars
from kgradcam.training.folder import CURVES_FILE, TrainingFolder, open_folder
from kgradcam.training.heatmap_callback import HeatmapCallback
from kgradcam.training.network import copy_network, learning_rates, set_trainable
from kgradcam.training.optimization import LayerwiseAdamW, MaskedCrossentropy, balanced_weights
from kgradcam.training.plan import Plan, Stage, plan_training
from kgradcam.training.saved_state import load_checkpoint, save_checkpoint


def train(
    configuration: TrainingConfiguration,
    folder: Path,
    *,
    data_dir: Path | None = None,
    force: bool = False,
    resume: bool = False,
    heatmaps: int = 0,
    quiet: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains a classifier and writes a model folder.

    Each epoch depends only on the configuration and the weights before it. An interrupted and
    resumed training therefore ends with the same weights, bit for bit, on a deterministic device.
    CPUs are one under `tf.config.experimental.enable_op_determinism()`, which the command line
    sets.

    Args:
        configuration: The options.
        folder: The model folder. Its card is written last.
        data_dir: Folder of tensorflow-datasets.
        force: Whether to replace an existing model folder.
        resume: Whether to continue an interrupted training with the same configuration.
        heatmaps: Every how many epochs the heatmaps of 16 validation images are logged, see
            `HeatmapCallback`. 0 logs none. The weights do not depend on it.
        quiet: Whether to hide the progress bar on stderr.
        report: Called with a line of text after each epoch, and on data that teach little.

    Returns:
        The card, see `models.model_card`.

    Raises:
        UserError: The configuration is wrong. The folder exists, another process trains in it, or
            it has nothing to resume. The data or the backbone of a resumed training changed. The
            loss is not finite.
    """
    begin = time.monotonic()
    with open_folder(folder, force, resume, report) as files, all_gpus().scope():
        if resume:
            files.require_same({"configuration": asdict(configuration)})
        plan = plan_training(configuration, data_dir)
        for caution in () if resume else plan.data.cautions:
            report(f"Warning: {caution}")
        files.begin(configuration, plan.inputs())
        training = _Training(plan, files, begin, heatmaps, quiet, report)
        training.run()
        return _finish(plan, files, training)


class _ProgressBar(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, advance: progress.Advance, images: int) -> None:
        super().__init__()
        self._advance, self._images = advance, images

    @override
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(self._images)


class _Training:
    """The epochs of a training, from the last checkpoint on.

    Args:
        plan: Data, network and stages.
        files: The model folder.
        begin: The `time.monotonic()` of the start.
        heatmaps: Every how many epochs heatmaps are logged; 0 logs none.
        quiet: Whether to hide progress bars.
        report: Called with a line of text after each epoch.

    Attributes:
        history: Number, stage, loss, validation mAP and learning rate of each finished epoch.
        seconds: Duration of the training, without interruptions.
    """

    def __init__(
        self,
        plan: Plan,
        files: TrainingFolder,
        begin: float,
        heatmaps: int,
        quiet: bool,
        report: Callable[[str], None],
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self._plan, self._files, self._quiet, self._report = plan, files, quiet, report
        self._begin, self._every = begin, heatmaps
        self._heatmaps: HeatmapCallback | None = None
        if files.checkpoint.exists():
            # The last epochs need the best weights, so damage must show before the first ones.
            load_checkpoint(files.best, plan.network.trained.weights)
            self.history, seconds = load_checkpoint(files.checkpoint)
            self._begin -= seconds

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def run(self) -> None:
        """Trains all stages."""
        plan = self._plan
        self._batches, self._validation = _sources(plan, self._files.features, self._quiet)
        self._log = tf.summary.create_file_writer(str(self._files.logs))
        if self._every:
            self._heatmaps = _heatmap_log(plan, self._files.logs, self._every)
        epochs = sum(stage.epochs for stage in plan.stages) - len(self.history)
        batch_size = plan.data.training.batch_size
        images = epochs * plan.steps * batch_size
        with progress.bar("training", images, "images", self._quiet) as advance:
            bar = _ProgressBar(advance, batch_size)
            first = 0
            for stage in plan.stages:
                self._run_stage(stage, first, bar)
                first += stage.epochs

    def _run_stage(self, stage: Stage, first: int, bar: _ProgressBar) -> None:
        """Trains the epochs of a stage that are not in the history yet."""
        trained = self._plan.network.trained
        done = sum(row["stage"] == stage.name for row in self.history)
        if done and self.history[-1]["stage"] != stage.name:
            return  # A later stage has begun.
        _compile(self._plan, stage)
        variables = [*trained.variables, *trained.optimizer.variables]
        if done:
            load_checkpoint(self._files.checkpoint, variables)
        is_last = stage == self._plan.stages[-1]
        patience = self._plan.configuration.patience
        for epoch in range(first + done, first + stage.epochs):
            if is_last and _is_over(self.history, first, patience):
                break
            if self._heatmaps:
                self._heatmaps.on_epoch_begin(epoch)
            row = self._run_epoch(epoch, stage, bar)
            # The best weights first: after a kill in between, the epoch is repeated exactly.
            if row["map"] > max((each["map"] for each in self.history), default=-1.0):
                save_checkpoint(self._files.best, trained.weights, [row], self.seconds)
            self.history.append(row)
            save_checkpoint(self._files.checkpoint, variables, self.history, self.seconds)
            logged = {name: row[name] for name in ("loss", "map", "learning_rate")}
            write_scalars(self._log, logged, row["epoch"])
            if self._heatmaps:
                self._heatmaps.on_epoch_end(epoch)
            self._report(
                f"epoch {row['epoch']} ({stage.name}): loss {row['loss']:.4f}, "
                f"validation mAP {100 * row['map']:.1f}"
            )

    def _run_epoch(self, epoch: int, stage: Stage, bar: _ProgressBar) -> dict[str, Any]:
        """Trains one epoch and validates it."""
        trained = self._plan.network.trained
        # The batches are shuffled already, by the random seed and the epoch.
        found = trained.fit(self._batches(epoch), verbose=0, shuffle=False, callbacks=[bar])
        loss = float(found.history["loss"][0])
        if not math.isfinite(loss):
            rate = self._plan.configuration.learning_rate
            raise UserError(
                f"The loss of epoch {epoch + 1} is {loss}. Start again with a learning_rate "
                f"below {rate:g}."
            )
        logits = trained.predict(self._validation(), verbose=0)
        values = classification_ap(self._plan.data.validation.labels, logits)
        return {
            "epoch": epoch + 1,
            "stage": stage.name,
            "loss": loss,
            "map": float(np.nanmean(values)),
            "learning_rate": float(trained.optimizer.learning_rate),
        }


def _is_over(history: Sequence[dict[str, Any]], first: int, patience: int) -> bool:
    """Whether the stage that began after `first` epochs has not improved for `patience` epochs."""
    if not patience or len(history) <= first:
        return False
    best = max(history, key=lambda row: row["map"])
    return bool(history[-1]["epoch"] - max(best["epoch"], first) >= patience)


def _compile(plan: Plan, stage: Stage) -> None:
    network, options = plan.network, plan.configuration
    set_trainable(network, stage.fine_tune)
    labels = plan.data.training.labels
    weights = np.ones(labels.shape[1], np.float32)
    if options.class_weights:
        weights = balanced_weights(labels)
    optimizer = LayerwiseAdamW(
        learning_rates(network, options.backbone_rate),
        learning_rate=keras.optimizers.schedules.CosineDecay(
            options.learning_rate, stage.epochs * plan.steps
        ),
        weight_decay=options.weight_decay,
    )
    network.trained.compile(optimizer, MaskedCrossentropy(weights), jit_compile=False)
    # Creates the optimizer's variables now, because a checkpoint may be loaded into them.
    network.trained.optimizer.build(network.trained.trainable_variables)


def _sources(
    plan: Plan, cache: Path, quiet: bool
) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    """Returns functions that make the training batches of an epoch, and the validation batches."""
    data, trunk = plan.data, plan.network.trunk
    views = plan.configuration.cached_views
    if trunk is None:
        return partial(data.training.batches, whole_batches=True), data.validation.batches
    count = views * len(data.training.examples) + len(data.validation.examples)
    with progress.bar("features", count, "images", quiet) as advance:
        features = cache_features(data.training, trunk, views, cache / "training", advance)
        validation = cache_features(data.validation, trunk, 1, cache / "validation", advance)
    return features.batches, validation.in_order


def _heatmap_log(plan: Plan, folder: Path, every: int) -> HeatmapCallback:
    """A callback of the whole network, because the trained part may begin at cached features."""
    pictures = plan.data.fixed_pictures()
    callback = HeatmapCallback(
        pictures.images,
        folder,
        classes=pictures.classes,
        boxes=pictures.boxes,
        every=every,
        preprocess=plan.data.validation.preprocess,
    )
    callback.set_model(plan.network.whole)
    callback.on_train_begin()
    return callback


def _finish(plan: Plan, files: TrainingFolder, training: _Training) -> dict[str, Any]:
    """Writes the best model, its curves and its card."""
    load_checkpoint(files.best, plan.network.trained.weights)
    model = plan.network.whole
    if plan.configuration.mixed_precision:
        model = copy_network(model, dtype="float32")
    for layer in model.layers:
        layer.trainable = True
    model.save(files.model)
    card = _make_card(plan, model, training.history, training.seconds)
    name = short_name(plan.data.training.dataset.name)
    title = f"{short_name(plan.configuration.model)} on {name}"
    held_out = plan.data.validation

    def write() -> None:
        save(draw_history(training.history, drawable(title)), files.path / CURVES_FILE)
        names = [each.file_name for each in held_out.examples]
        write_held_out(files.path, held_out.dataset.split, names)
        write_card(files.path, card)

    files.finish(write)
    return card


def _make_card(
    plan: Plan, model: keras.Model, history: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """Evaluates the model and returns its card."""
    configuration, data = plan.configuration, plan.data
    metrics = {
        name: _metrics(model, part, data.class_names)
        for name, part in data.parts.items()
        if name != "training"
    }
    skipped = {each for part in data.parts.values() for each in part.dataset.left_out()}
    return {
        "classes": list(data.class_names),
        "preprocess": preprocessing_name(configuration),
        "image_size": configuration.image_size,
        "layer": list_layers(model)[1].path,
        "training": asdict(configuration),
        "data": data.describe(),
        "metrics": metrics,
        "skipped": [{"file": name, "reason": reason} for name, reason in sorted(skipped)],
        "history": history,
        "seconds": round(seconds, 1),
        "versions": {
            "kgradcam": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _metrics(
    model: keras.Model, images: LabelledImages, class_names: Sequence[str]
) -> dict[str, Any]:
    """Returns the average precision of each class and their mean; `None` without positives."""
    values = classification_ap(images.labels, model.predict(images.batches(), verbose=0))
    known = {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(class_names, values, strict=True)
    }
    return {"map": float(np.nanmean(values)), "ap": known}
