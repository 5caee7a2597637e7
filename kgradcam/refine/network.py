"""The feature maps of the network that made a run's heatmaps; needs TensorFlow and the images."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf

from kgradcam.data.dataset import Dataset
from kgradcam.data.images import sides, to_channels
from kgradcam.errors import UserError
from kgradcam.heatmaps.forward import as_grid
from kgradcam.heatmaps.layers import find_call, finer_calls, record_calls
from kgradcam.models.classifier import Classifier
from kgradcam.models.digests import weights_digest
from kgradcam.refine.pooling import Maps
from kgradcam.runs.explaining import load_model
from kgradcam.runs.run import Run
from kgradcam.runs.run_dataset import open_run_dataset
from kgradcam.runs.tables import Image

_SIDE = 224
_BATCH = 16


class Network:
    """The network of a run, up to the explained layer.

    Images have the size that the network was trained at: 224 pixels where it is unknown. There a
    forward pass takes a quarter of the time that it takes at the size of heatmaps.

    Args:
        classifier: The model.
        layer: The explained layer, or layers; `None` is the last one.
        dataset: Has the files of the images.
        images: The images of the run.
    """

    def __init__(
        self,
        classifier: Classifier,
        layer: str | tuple[str, ...] | None,
        dataset: Dataset,
        images: Sequence[Image],
    ) -> None:
        self._classifier = classifier
        self._layer = layer
        self._dataset = dataset
        self._images = images
        self._size = self._classifier.image_size or self._classifier.own_size or _SIDE
        height, width = sides(self._size)[::-1]
        shape = tf.TensorSpec([None, height, width, self._classifier.channels], tf.float32)
        self._function = tf.function(self._trace, input_signature=[shape])

    @classmethod
    def of_run(cls, run: Run) -> Self:
        """Opens the model and the images of a run.

        Raises:
            UserError: The model or the dataset is gone, or the model has changed since.
        """
        classifier = load_model(run.info.configuration)
        if weights_digest(classifier.model.variables) != run.info.model.digest:
            raise UserError(f"The model of {run.folder} has other weights than when it was made.")
        dataset = open_run_dataset(run)
        return cls(classifier, run.info.model.layer, dataset, run.ground_truth.images)

    def _trace(self, images: Any) -> list[Any]:
        model, layer = self._classifier.model, self._layer
        with record_calls(model) as recording:
            model(self._classifier.preprocess(images), training=False)
        path = layer if isinstance(layer, str) else (layer or ("",))[-1]
        last = find_call(recording.calls, path, recording.hidden)
        calls = [last, *finer_calls(recording.calls, last, count=1)]
        return [tf.cast(as_grid(each, each.feature_maps), tf.float16) for each in calls]

    def maps(self, image_ids: Collection[int]) -> Iterator[tuple[int, Maps]]:
        """Yields the id and the feature maps of images of the run, in any order.

        Raises:
            UserError: An image is gone or does not decode.
        """
        wanted = {each.file_name: each.id for each in self._images if each.id in image_ids}
        examples = [each for each in self._dataset.examples if each.file_name in wanted]
        if missing := wanted.keys() - {each.file_name for each in examples}:
            raise UserError(f"{self._dataset.name} has no image {min(missing)!r} any more.")
        for batch in self._dataset.batches(examples, _BATCH, self._size):
            for example, reason in batch.damaged:
                raise UserError(f"{example.file_name}: {reason}")
            images = to_channels(batch.images, self._classifier.channels).astype(np.float32)
            found = [each.numpy() for each in self._function(images)]
            for i, example in enumerate(batch.examples):
                yield wanted[example.file_name], [each[i] for each in found]
