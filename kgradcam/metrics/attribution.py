"""Heatmaps as attributions at the size of the inputs, for toolkits that rate explanations."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from kgradcam.boxes.normalization import fit
from kgradcam.heatmaps.methods import find_method


def attributions(
    model: keras.Model, inputs: npt.ArrayLike, targets: npt.ArrayLike, **options: Any
) -> npt.NDArray[np.float32]:
    """Returns heatmaps at the size of their images: an `explain_func` for Quantus.

    Args:
        model: The model.
        inputs: As the model takes them, `[batch, height, width, channels]`; or with the channels
            first, as Quantus passes them on.
        targets: Class indices, `[batch]`.
        **options: `method`, the name of one, default `"gradcam"`; and further arguments of
            `GradCAM`: `layer`, `preprocess` and others.

    Returns:
        float32 `[batch, 1, height, width]`, in units of the score, not normalized. The channels
        are first in either case, as Quantus compares them.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(10),
        ... ])
        >>> attributions(model, np.ones((2, 8, 8, 3)), [1, 2]).shape
        (2, 1, 8, 8)
    """
    method = find_method(options.pop("method", "gradcam"))
    images = np.asarray(inputs)
    shape = tuple(getattr(model, "input_shape", None) or ())
    if len(shape) == 4 and images.shape[1] == shape[3] != images.shape[3]:
        images = images.transpose(0, 2, 3, 1)
    classes = [int(index) for index in np.ravel(targets)]
    found = method(model, **options)(images, class_per_image=classes)
    size = (images.shape[2], images.shape[1])
    resized = [fit(heatmap[0], size, found.extent) for heatmap in found.heatmaps]
    return np.stack(resized)[:, np.newaxis]
