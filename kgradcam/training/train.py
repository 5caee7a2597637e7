"""From labelled pictures to a model folder: the epochs, their checkpoints, and what they end in."""

import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgradcam import __version__, progress
from kgradcam.devices import all_gpus
from kgradcam.errors import UserError
from kgradcam.files import write_atomically
from kgradcam.heatmaps.layers import list_layers
from kgradcam.metrics.classification import classification_ap
from kgradcam.models.model_card import CARD_FILE, MODEL_FILE, PLAN_FILE, write_card
from kgradcam.pictures.figures import save
from kgradcam.training.batches import cache_features
from kgradcam.training.curves import draw_history, log_epoch
from kgradcam.training.network import copy_network, learning_rates, set_trainable
from kgradcam.training.optimization import LayerwiseAdamW, MaskedCrossentropy, balanced_weights
from kgradcam.training.plan import Configuration, Plan, plan_training, preprocessing_name
from kgradcam.training.saved_state import load_checkpoint, read_state, save_checkpoint

CHECKPOINT_FILE, BEST_FILE = "checkpoint.npz", "best.npz"
CACHE_FOLDER, LOG_FOLDER = "features", "logs"
SIDE_WEIGHT = 0.3


def train(
    configuration: Configuration,
    folder: Path,
    *,
    data_dir: Path | None = None,
    force: bool = False,
    resume: bool = False,
    quiet: bool = True,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Trains a classifier and writes a model folder.

    An epoch depends on the configuration and on what was learned before, and on nothing else: a
    training that was killed and resumed ends with the weights of one that was not, bit for bit,
    where the device computes alike twice (CPUs do under
    `tf.config.experimental.enable_op_determinism()`, which the command line sets).

    Args:
        configuration: What to train.
        folder: Where the model shall be; its card appears when it is finished.
        data_dir: Where tensorflow-datasets keeps its data.
        force: Replaces a model folder that is already there.
        resume: Goes on with a training of the same configuration that was interrupted.
        quiet: Shows no progress on stderr.
        report: Is told a line after each epoch.

    Returns:
        The card; see `model_folder`.

    Raises:
        UserError: Something in the configuration does not exist or does not fit, the folder exists,
            there is nothing to resume, or the loss is no number any more.
    """
    begin = time.monotonic()
    with all_gpus().scope():
        plan = plan_training(configuration, data_dir)
        _open_folder(folder, configuration, force, resume)
        history, seconds = _fit(plan, folder, begin, quiet, report)
        return _finish(plan, folder, history, seconds)


def read_plan(folder: Path) -> Configuration:
    """Returns what an unfinished training in a folder is to become.

    Raises:
        UserError: There is none.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        done = " It is finished." if (folder / CARD_FILE).is_file() else ""
        raise UserError(f"There is no interrupted training in {folder} to resume.{done}")
    return Configuration.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _open_folder(folder: Path, configuration: Configuration, force: bool, resume: bool) -> None:
    if resume:
        if read_plan(folder) != configuration:
            raise UserError(f"The training in {folder} has another configuration; see {PLAN_FILE}.")
        return
    if folder.exists():
        ours = any((folder / name).is_file() for name in (CARD_FILE, PLAN_FILE))
        if folder.is_dir() and not any(folder.iterdir()):
            pass
        elif not force:
            more = ", or go on with --resume" if (folder / PLAN_FILE).is_file() else ""
            raise UserError(
                f"{folder} is already there. Choose another, or replace it with --force{more}."
            )
        elif not ours:
            raise UserError(f"{folder} is no model folder, so --force does not replace it.")
        else:
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(configuration), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / PLAN_FILE, text)


class _Bar(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, advance: progress.Advance, images: int) -> None:
        super().__init__()
        self._advance, self._images = advance, images

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(self._images)


def _fit(
    plan: Plan, folder: Path, begin: float, quiet: bool, report: Callable[[str], None]
) -> tuple[list[dict[str, Any]], float]:
    """Trains all stages, from where a checkpoint stands; returns the epochs and the seconds."""
    trained, options, training = plan.network.trained, plan.configuration, plan.data.training
    batches, validation = _sources(plan, folder, quiet)
    checkpoint = folder / CHECKPOINT_FILE
    history: list[dict[str, Any]] = []
    before = 0.0
    if checkpoint.is_file():
        state = read_state(checkpoint)
        history, before = state["history"], state["seconds"]
    writer = tf.summary.create_file_writer(str(folder / LOG_FOLDER))
    total = sum(epochs for _, epochs, _ in plan.stages) - len(history)
    images = plan.steps * training.batch_size
    with progress.bar("training", total * images, "images", quiet) as advance:
        done = 0
        for stage, epochs, fine_tune in plan.stages:
            _compile(plan, fine_tune, epochs)
            variables = [*trained.variables, *trained.optimizer.variables]
            of_stage = [row for row in history if row["stage"] == stage]
            if of_stage and history[-1]["stage"] == stage:
                load_checkpoint(checkpoint, variables)
            elif of_stage:
                done += epochs
                continue
            for epoch in range(done + len(of_stage), done + epochs):
                if stage == plan.stages[-1][0] and _is_over(history, done, options.patience):
                    break
                found = trained.fit(
                    batches(epoch),
                    verbose=0,
                    shuffle=False,  # the batches are in their order already
                    callbacks=[_Bar(advance, training.batch_size)],
                )
                loss = float(found.history["loss"][0])
                if not math.isfinite(loss):
                    raise UserError(
                        f"The loss of epoch {epoch + 1} is {loss}: nothing is learned any more. "
                        f"Begin anew with a lower learning_rate than {options.learning_rate:g}."
                    )
                logits = trained.predict(validation(), verbose=0)[:, 0]
                values = classification_ap(plan.data.validation.labels, logits)
                row: dict[str, Any] = {
                    "epoch": epoch + 1,
                    "stage": stage,
                    "loss": loss,
                    "map": float(np.nanmean(values)),
                    "learning_rate": float(trained.optimizer.learning_rate),
                }
                # The best weights first: killed between the two, the epoch runs again, alike.
                if row["map"] > max((each["map"] for each in history), default=-1.0):
                    save_checkpoint(folder / BEST_FILE, trained.weights, row)
                history.append(row)
                seconds = before + time.monotonic() - begin
                save_checkpoint(checkpoint, variables, {"history": history, "seconds": seconds})
                log_epoch(writer, row)
                report(
                    f"epoch {epoch + 1} ({stage}): loss {row['loss']:.4f}, "
                    f"validation mAP {100 * row['map']:.1f}"
                )
            done += epochs
    return history, before + time.monotonic() - begin


def _is_over(history: Sequence[dict[str, Any]], before: int, patience: int) -> bool:
    """Whether a stage has not become better for too long; `before` epochs were there before it."""
    if not patience or len(history) <= before:
        return False
    best = max(history, key=lambda row: row["map"])
    return bool(history[-1]["epoch"] - max(best["epoch"], before) >= patience)


def _compile(plan: Plan, fine_tune: bool, epochs: int) -> None:
    network, options = plan.network, plan.configuration
    set_trainable(network, fine_tune)
    labels = plan.data.training.labels
    heads = 1 + len(options.architecture.side_layers)
    weights = np.ones(labels.shape[1], np.float32)
    if options.class_weights:
        weights = balanced_weights(labels)
    optimizer = LayerwiseAdamW(
        learning_rates(network, options.backbone_rate),
        learning_rate=keras.optimizers.schedules.CosineDecay(
            options.learning_rate, epochs * plan.steps
        ),
        weight_decay=options.weight_decay,
    )
    network.trained.compile(
        optimizer,
        MaskedCrossentropy(weights, [1.0, *[SIDE_WEIGHT] * (heads - 1)]),
        jit_compile=False,
    )
    network.trained.optimizer.build(network.trained.trainable_variables)


def _sources(
    plan: Plan, folder: Path, quiet: bool
) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    """What makes the batches of an epoch, and those of the validation."""
    data, trunk = plan.data, plan.network.trunk
    views = plan.configuration.cached_views
    if trunk is None:
        return partial(data.training.batches, whole_batches=True), data.validation.batches
    count = views * len(data.training.examples) + len(data.validation.examples)
    with progress.bar("features", count, "images", quiet) as advance:
        cache = folder / CACHE_FOLDER
        train_features = cache_features(data.training, trunk, views, cache / "training", advance)
        validation = cache_features(data.validation, trunk, 1, cache / "validation", advance)
    return train_features.batches, validation.in_order


def _finish(
    plan: Plan, folder: Path, history: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """Writes the model with the best weights, its curves and its card; removes the checkpoints."""
    network, configuration, data = plan.network, plan.configuration, plan.data
    load_checkpoint(folder / BEST_FILE, network.trained.weights)
    whole = network.whole
    if configuration.mixed_precision:
        whole = copy_network(whole, dtype="float32")
    for layer in whole.layers:
        layer.trainable = True
    whole.save(folder / f"partial-{MODEL_FILE}")
    (folder / f"partial-{MODEL_FILE}").replace(folder / MODEL_FILE)
    name = data.training.dataset.name
    title = f"{configuration.model} on {Path(name).name if Path(name).is_dir() else name}"
    save(draw_history(history, title), folder / "curves.png")
    measured = {
        name: classification_ap(part.labels, whole.predict(part.batches(), verbose=0))
        for name, part in data.parts.items()
        if name != "training"
    }
    card = {
        "classes": list(data.class_names),
        "preprocess": preprocessing_name(configuration),
        "image_size": configuration.image_size,
        "layer": list_layers(whole)[1].path,
        "training": asdict(configuration),
        "data": data.describe(),
        "metrics": {
            name: {
                "map": _known(np.nanmean(values)),
                "ap": {n: _known(v) for n, v in zip(data.class_names, values, strict=True)},
            }
            for name, values in measured.items()
        },
        "skipped": [
            {"file": name, "reason": reason}
            for name, reason in sorted(
                {each for part in data.parts.values() for each in part.dataset.left_out()}
            )
        ],
        "history": history,
        "seconds": round(seconds, 1),
        "versions": {
            "kgradcam": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }
    write_card(folder, card)
    for name in (PLAN_FILE, CHECKPOINT_FILE, BEST_FILE):
        (folder / name).unlink()
    shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
    return card


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
