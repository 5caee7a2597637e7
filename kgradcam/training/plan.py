"""The plan of a training: data, network and stages, before the first epoch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kgradcam.errors import UserError
from kgradcam.heatmaps.default_layer import list_layers
from kgradcam.models.hub import is_preset
from kgradcam.models.network import load_network, require_model
from kgradcam.training.configuration import TrainingConfiguration
from kgradcam.training.data import TrainingData, open_data
from kgradcam.training.network import (
    Network,
    build_network,
    copy_network,
    pretrained_digests,
)


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs that train the same layers.

    Attributes:
        name: `"head"` or `"fine-tune"`.
        epochs: Number of epochs.
        fine_tune: Whether pretrained layers are trained.
    """

    name: str
    epochs: int
    fine_tune: bool


@dataclass(frozen=True)
class Plan:
    """Everything that a training needs.

    Attributes:
        configuration: The options.
        data: The images.
        network: The network.
        missing: Layers of the network that the weights file lacks.
        stages: The stages, in order.
    """

    configuration: TrainingConfiguration
    data: TrainingData
    network: Network
    missing: tuple[str, ...]
    stages: tuple[Stage, ...]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.data.training.examples) // self.data.training.batch_size

    def inputs(self) -> dict[str, Any]:
        """Returns digests of data and backbone, which must be equal in a resumed training."""
        backbone = pretrained_digests(self.network)
        return {"data": self.data.digests(), "backbone": backbone}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Returns a summary as a table: the header, then the rows of name and value."""
        network, rows = self.network, []
        for name, part in self.data.describe().items():
            positives = ", ".join(f"{each} {count}" for each, count in part["positives"].items())
            rows.append([name, f"{part['images']} images of {part['split']}: {positives}"])
        rows.append(["maps", _describe_maps(network.whole, self.configuration.image_size)])
        rows.append(["random weights", f"{len(network.fresh)} layers"])
        if self.missing:
            rows.append(["not in weights", ", ".join(self.missing)])
        if pretrained := network.pretrained:
            ends = f"{pretrained[0]} to {pretrained[-1]}"
            rows.append(["pretrained", f"{len(pretrained)} layers, {ends}"])
        if self.configuration.frozen_until:
            rows.append(["frozen", f"up to {self.configuration.frozen_until}"])
        for stage in self.stages:
            rows.append([stage.name, f"{stage.epochs} epochs of {self.steps} batches"])
        return ["", ""], rows


def _describe_maps(network: keras.Model, size: int) -> str:
    """Returns the layer explained by default, and the shape of its feature maps."""
    shape = list_layers(copy_network(network, side=size))[1].shape
    return f"{list_layers(network)[1].path}: {' x '.join(map(str, shape))}"


def plan_training(configuration: TrainingConfiguration, data_dir: Path | None = None) -> Plan:
    """Opens the data and builds the network.

    Args:
        configuration: The options.
        data_dir: Folder of tensorflow-datasets.

    Returns:
        The plan.

    Raises:
        UserError: A dataset, split, class, model, layer or file does not exist or does not fit.
    """
    if is_preset(configuration.model):
        raise UserError(
            "A preset of KerasHub cannot be trained here: its layers are inside a backbone. "
            "Expected model to be a network, a .keras file or a folder. Received: "
            f"{configuration.model!r}."
        )
    require_model(configuration.model)
    # Sets the seed of Keras for the initial weights of the head.
    keras.utils.set_random_seed(configuration.seed)
    data = open_data(configuration, data_dir)
    backbone, missing = load_network(configuration.model, configuration.weights)
    network = build_network(
        backbone,
        len(data.class_names),
        last_layer=configuration.last_layer,
        dilation=configuration.dilation,
        missing=missing,
        frozen_until=configuration.frozen_until,
        cached=bool(configuration.cached_views),
        dtype="mixed_float16" if configuration.mixed_precision else None,
    )
    built = {layer.name for layer in network.whole.layers}
    return Plan(
        configuration=configuration,
        data=data,
        network=network,
        missing=tuple(name for name in missing if name in built),
        stages=_stages(configuration, network),
    )


def _stages(configuration: TrainingConfiguration, network: Network) -> tuple[Stage, ...]:
    head, epochs = configuration.head_epochs, configuration.epochs
    if not network.pretrained:  # Both stages would train the same layers.
        return (Stage("head", head + epochs, False),)
    stages = (Stage("head", head, False), Stage("fine-tune", epochs, True))
    return tuple(stage for stage in stages if stage.epochs)
