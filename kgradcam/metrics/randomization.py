"""The sanity check of explanations: do heatmaps depend on the weights of the model?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError
from kgradcam.heatmaps.explainer import Explainer, Explanation
from kgradcam.heatmaps.frozen import FrozenExplainer
from kgradcam.metrics.perturbation import class_arguments
from kgradcam.metrics.rank_correlation import rank_correlation


def randomization_correlation(
    explainer: Explainer,
    images: npt.NDArray[Any],
    explanation: Explanation,
    *,
    stages: int = 1,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Measures how heatmaps change with the weights (Adebayo et al., NeurIPS 2018).

    Shuffles the entries of each weight of the model, and restores them at the end. No other thread
    may use the model until then.

    Args:
        explainer: The explainer of the heatmaps.
        images: Its images, `[batch, height, width, channels]`.
        explanation: Its heatmaps.
        stages: The number of stages of the cascade; weights near the output come first.
        seed: The random seed.

    Returns:
        The rank correlation of each heatmap before and after, in [-1, 1], or 0 if it becomes
        constant: `[stages, batch, classes]`. Near 0 is good: a method whose heatmaps hardly change
        does not explain the model.

    Raises:
        UserError: The explainer is frozen.
    """
    if isinstance(explainer, FrozenExplainer):
        raise UserError(
            "randomization_correlation shuffles the weights of the model, and a frozen explainer "
            "does not follow them. Received: a FrozenExplainer. Pass the GradCAM that it was made "
            "from."
        )
    correlations = []
    with _restored(explainer.model) as weights:
        generator = np.random.default_rng(seed)
        for stage in np.array_split(np.arange(len(weights))[::-1], stages):
            for i in stage:
                shuffled = generator.permutation(weights[i].numpy().ravel())
                weights[i].assign(shuffled.reshape(weights[i].shape))
            again = explainer(images, **class_arguments(explanation)).heatmaps
            correlations.append(
                [
                    [rank_correlation(*pair) for pair in zip(before, after, strict=True)]
                    for before, after in zip(explanation.heatmaps, again, strict=True)
                ]
            )
    return np.array(correlations)


@contextmanager
def _restored(model: keras.Model) -> Iterator[list[Any]]:
    weights = [weight for weight in model.weights if weight.dtype.startswith(("float", "bfloat"))]
    values = [weight.numpy() for weight in weights]
    try:
        yield weights
    finally:
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
