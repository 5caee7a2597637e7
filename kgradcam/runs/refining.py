"""The refiner of a run: what makes its boxes from its heatmaps, instead of the options of boxes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kgradcam.boxes.options import DEFAULT_OPTIONS, DEFAULT_THRESHOLDS
from kgradcam.errors import UsageError
from kgradcam.progress import Advance
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run_info import RefinerInfo
from kgradcam.runs.tables import Detections, Image

if TYPE_CHECKING:
    from kgradcam.data.dataset import Dataset
    from kgradcam.models.classifier import Classifier


class BoxRefiner(Protocol):
    """Makes boxes from stored heatmaps; `kgradcam.refine.RunRefiner` is one.

    Attributes:
        info: Its description in `run.json`.
    """

    info: RefinerInfo

    def require_fitting(self, folder: Path, model: str, images: Iterable[Image]) -> None:
        """Checks that it may refine a run to `folder` of these images.

        Args:
            folder: The run folder.
            model: The digest of the model's weights.
            images: The images of the run.

        Raises:
            UserError: It needs another model, or was trained on one of the images.
        """

    def __call__(
        self,
        heatmaps: Iterable[ClassHeatmap],
        images: Sequence[Image],
        classifier: "Classifier",
        layer: str | tuple[str, ...] | None,
        dataset: "Dataset",
        advance: Advance,
    ) -> Detections:
        """Returns the boxes of heatmaps.

        Args:
            heatmaps: The heatmaps.
            images: Their images.
            classifier: The model.
            layer: Its explained layer, or layers.
            dataset: The images' files.
            advance: Called with 1 after each heatmap.
        """


def require_default_boxes(configuration: Configuration) -> None:
    """Checks that a run with a refiner has no options of boxes, which it would ignore.

    Raises:
        UsageError: It has.
    """
    boxes, thresholds = configuration.boxes, configuration.thresholds
    if (boxes, thresholds) != (DEFAULT_OPTIONS["levels"], DEFAULT_THRESHOLDS["levels"]):
        raise UsageError(
            "A refiner makes boxes from all heat levels. Leave out thresholds and all options of "
            f"boxes, or the refiner. Received: thresholds={thresholds!r}, {boxes!r}."
        )
