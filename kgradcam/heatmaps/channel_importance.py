"""Channels that raise or lower the score of a class (Selvaraju et al., IJCV 2020, section 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kgradcam.heatmaps.class_groups import ClassTarget
from kgradcam.heatmaps.forward import ForwardPass
from kgradcam.heatmaps.gradcam import GradCAM


@dataclass(frozen=True)
class NeuronImportance:
    """The weights alpha of a layer's channels for one class.

    Attributes:
        layer: The path of the layer.
        class_name: The class, as given.
        alphas: float32 `[channels]`: the derivative of the score by the channel, averaged over the
            places of the feature map.
        names: A name for each channel.
    """

    layer: str
    class_name: str
    alphas: npt.NDArray[np.float32]
    names: tuple[str, ...]

    def highest(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns the channels that raise the score most: names and alphas, all positive."""
        order = np.argsort(-self.alphas, kind="stable")[:count]
        return [(self.names[i], float(self.alphas[i])) for i in order if self.alphas[i] > 0]

    def lowest(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns the channels that lower the score most: names and alphas, all negative."""
        order = np.argsort(self.alphas, kind="stable")[:count]
        return [(self.names[i], float(self.alphas[i])) for i in order if self.alphas[i] < 0]

    def table(self, count: int = 5) -> tuple[list[str], list[list[str]]]:
        """Returns a header and rows of text: the highest channels, then the lowest."""
        lines = [*self.highest(count), *reversed(self.lowest(count))]
        return ["channel", "alpha"], [[name, f"{alpha:+.4g}"] for name, alpha in lines]

    def sentence(self, count: int = 5) -> str:
        """Returns the textual explanation of the paper's section 6.1."""
        positive = _listed([name for name, _ in self.highest(count)])
        negative = _listed([name for name, _ in self.lowest(count)])
        return f"{self.class_name}: {positive} raise the score, {negative} lower it."


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return names[0] if names else "no channels"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def neuron_importance(
    model: keras.Model,
    image: Any,
    target: ClassTarget,
    *,
    names: Sequence[str] | Mapping[int, str] | None = None,
    class_name: str | None = None,
    **options: Any,
) -> NeuronImportance:
    """Computes the weights of a layer's channels: alpha_k = mean over space of d y^c / d A^k.

    Args:
        model: Any model that `GradCAM` takes.
        image: `[height, width, channels]`; for a model of several inputs, their list or dict.
        target: A class index or a group of them.
        names: Names of the patterns that channels respond to, as Network Dissection finds them: a
            list, or a dict by channel index. Other channels are named by their index.
        class_name: The name of the class. Default: its index.
        options: Arguments of `GradCAM`, as `layer`, `output` and `preprocess`.

    Returns:
        A `NeuronImportance`, with `table()` and `sentence()`.

    Raises:
        UserError: The same as `GradCAM` and its call.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(2, 3, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(1, kernel_initializer=lambda *_, **__: [[36.0], [-72.0]]),
        ... ])
        >>> neuron_importance(
        ...     model, np.zeros((8, 8, 3)), 0, names=["ears", "wheels"], class_name="cat"
        ... ).sentence()
        'cat: ears raise the score, wheels lower it.'
    """
    explainer = GradCAM(model, method=ForwardPass.mean_gradients, relu=False, **options)
    batch = tf.nest.map_structure(lambda each: np.asarray(each)[np.newaxis], image)
    alphas = explainer(batch, classes=[target]).heatmaps[0, 0]
    known = dict(names) if isinstance(names, Mapping) else dict(enumerate(names or ()))
    return NeuronImportance(
        layer=str(explainer.layer),
        class_name=class_name or f"class {target}",
        alphas=alphas,
        names=tuple(known.get(i, f"channel {i}") for i in range(len(alphas))),
    )
