"""A callback that records during `model.fit` where the model sees its classes."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from typing_extensions import override

from kgradcam.boxes.normalization import normalize
from kgradcam.errors import UserError
from kgradcam.heatmaps.class_groups import ClassTarget
from kgradcam.heatmaps.explainer import require_height_and_width
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.metrics.pointing_game import energy_inside
from kgradcam.pictures.blending import overlay
from kgradcam.training.event_log import write_pictures, write_scalars

_log = logging.getLogger(__name__)


class HeatmapCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs heatmaps of fixed pictures to TensorBoard, before the training and every few epochs.

    The log has overlays (`heatmaps`) and two scalars:

    * `energy`: the share of the heat inside the boxes, the mean of the pictures that have some. It
      falls when the model learns to look elsewhere.
    * `movement`: the part of the heat that moved since the last time, half the sum of absolute
      differences, in [0, 1]. It ends near 0 when the model has settled.

    The training stays bit for bit as it would be without. The cost is one compilation, and a pass
    over the pictures each time; the seconds are in the log of Python. Any model that `GradCAM`
    explains will do: subclassed, in mixed precision, or under `tf.distribute.MirroredStrategy`.

    Args:
        images: Validation pictures as the model takes them, `[batch, height, width, channels]`.
            The first `limit` are used.
        log_dir: The folder of the log; it may be that of `keras.callbacks.TensorBoard`.
        classes: The class of each picture, or a group. Default: the top class each time.
        boxes: The boxes of each picture, `[boxes, 4]`, xyxy in pixels, half-open; of no objects
            `[0, 4]`. Without boxes there is no `energy`.
        every: The number of epochs between two records.
        limit: The largest number of pictures.
        **options: Further arguments of `GradCAM`: `layer`, `method`, `output` and others.

    Attributes:
        history: `epoch`, `movement`, `energy` and `seconds` of each record; `movement` from the
            second on.

    Raises:
        UserError: There are no pictures, or not as many classes or boxes as pictures; at the first
            epoch, if the pictures do not fit the model.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2),
        ... ])
        >>> model.compile("sgd", "mse")
        >>> images, labels = np.ones((4, 8, 8, 3)), np.ones((4, 2))
        >>> heatmaps = HeatmapCallback(images, "logs", classes=(0, 1, 0, 1))
        >>> _ = model.fit(images, labels, verbose=0, callbacks=[heatmaps])
        >>> len(heatmaps.history)
        2
    """

    def __init__(
        self,
        images: npt.ArrayLike,
        log_dir: str | Path,
        *,
        classes: Sequence[ClassTarget] | None = None,
        boxes: Sequence[npt.ArrayLike] | None = None,
        every: int = 1,
        limit: int = 16,
        **options: Any,
    ) -> None:
        super().__init__()
        pictures = _as_batch(images)
        if limit < 1 or every < 1:
            raise UserError(
                f"limit and every must be from 1 up. Received: limit={limit}, every={every}."
            )
        for name, given in (("classes", classes), ("boxes", boxes)):
            if given is not None and len(given) != len(pictures):
                raise UserError(
                    f"{name} must have an entry for each of the {len(pictures)} images. "
                    f"Received: {len(given)}."
                )
        self.history: list[dict[str, float]] = []
        self._images = pictures[:limit]
        self._classes = None if classes is None else classes[:limit]
        self._boxes = None if boxes is None else _as_boxes(boxes[:limit], self._images)
        self._folder = Path(log_dir) / "heatmaps"
        self._every, self._options = every, options
        self._explainer: GradCAM | None = None
        self._writer: Any = None
        self._last: npt.NDArray[np.float32] | None = None

    @override
    def on_train_begin(self, logs: Any = None) -> None:
        self._explainer, self._last = None, None
        try:
            self._writer = tf.summary.create_file_writer(str(self._folder))
        except tf.errors.OpError as error:
            reason = error.message.split("}} ")[-1].split(" [Op:")[0]
            raise UserError(f"log_dir must be a folder that can be written: {reason}") from error

    @override
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._last is None:
            self._record(epoch)

    @override
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self._every == 0:
            self._record(epoch + 1)

    @override
    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()

    def _record(self, epoch: int) -> None:
        """Computes the heatmaps, and appends them to the log."""
        begin = time.perf_counter()
        if self._explainer is None:
            self._explainer = GradCAM(self.model, **self._options)
        explanation = self._explainer(self._images, class_per_image=self._classes)
        require_height_and_width(explanation, self._explainer.layer)
        height, width = self._images.shape[1:3]
        heatmaps = np.stack(
            [
                normalize(each[0], (width, height), explanation.extent)
                for each in explanation.heatmaps
            ]
        )
        record = {}
        if self._last is not None:
            record["movement"] = float(_moved(self._last, heatmaps).mean())
        if self._boxes is not None:
            shares = [
                energy_inside(heatmap, boxes)
                for heatmap, boxes in zip(heatmaps, self._boxes, strict=True)
                if len(boxes)
            ]
            record["energy"] = float(np.mean(shares)) if shares else float("nan")
        self._last = heatmaps
        write_scalars(self._writer, record, epoch)
        overlays = [
            overlay(_visible(image), heatmap)
            for image, heatmap in zip(self._images, heatmaps, strict=True)
        ]
        write_pictures(self._writer, "heatmaps", overlays, epoch)
        seconds = time.perf_counter() - begin
        self.history.append({"epoch": epoch, **record, "seconds": seconds})
        _log.info("Heatmaps of %s pictures at epoch %s: %.2f s.", len(heatmaps), epoch, seconds)


def _as_batch(images: npt.ArrayLike) -> npt.NDArray[Any]:
    """The pictures as an array."""
    try:
        pictures = np.asarray(images)
        received = f"shape {pictures.shape}"
    except ValueError:  # a list of arrays
        pictures, received = np.zeros(0), "pictures of several sizes"
    if pictures.dtype.kind not in "biuf":
        received = f"a {type(images).__name__}"
    if pictures.ndim != 4 or not len(pictures) or pictures.dtype.kind not in "biuf":
        raise UserError(
            "images must be an array [batch, height, width, channels] of at least one picture, as "
            f"the model takes them. Received: {received}. A batch of a tf.data.Dataset is "
            "next(iter(dataset))[0]."
        )
    return pictures


def _as_boxes(
    boxes: Sequence[npt.ArrayLike], pictures: npt.NDArray[Any]
) -> list[npt.NDArray[np.float64]]:
    """The boxes of each picture; those of another scale would give an energy that is wrong."""
    height, width = pictures.shape[1:3]
    rows = [np.asarray(each, np.float64) for each in boxes]
    rows = [each if each.size else each.reshape(0, 4) for each in rows]
    for i, each in enumerate(rows):
        if each.ndim != 2 or each.shape[1] != 4:
            raise UserError(
                f"boxes[{i}] must be [boxes, 4], xyxy in pixels. Received: the shape {each.shape}."
            )
        inside = (each >= -1) & (each <= np.array([width, height] * 2) + 1)  # with rounding
        good = inside.all(axis=1) & (each[:, :2] < each[:, 2:]).all(axis=1)
        if not good.all() or (len(each) and each.max() <= 1 < min(height, width)):
            raise UserError(
                f"boxes[{i}] must be xyxy in pixels of its picture of {width}x{height}, with "
                f"xmin < xmax and ymin < ymax. Received: {each[good.argmin()].tolist()}. Boxes are "
                "scaled with their picture; fractions of its size become pixels by its size."
            )
    return rows


def _moved(
    before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """The part of the heat that moved between two heatmaps of each picture; `[pictures]`."""
    shares = []
    for heatmaps in (before, after):
        total = heatmaps.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
        shares.append(heatmaps / np.where(total > 0, total, 1))
    return np.abs(shares[0] - shares[1]).sum(axis=(1, 2)) / 2


def _visible(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An image that can be drawn; one that was preprocessed is stretched to [0, 1]."""
    if image.shape[-1] not in (1, 3, 4):
        image = image.mean(axis=-1)
    low, high = float(image.min()), float(image.max())
    return image if low >= 0 and high <= 255 else (image - low) / max(high - low, 1e-12)
