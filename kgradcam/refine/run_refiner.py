"""Refines the boxes of a run while it is made."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kgradcam.files import file_digest
from kgradcam.progress import Advance, ignore
from kgradcam.refine.refiner import load_refiner, refine_heatmaps, require_fitting
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run_info import RefinerInfo
from kgradcam.runs.tables import Detections, Image

if TYPE_CHECKING:
    from kgradcam.data.dataset import Dataset
    from kgradcam.models.classifier import Classifier


class RunRefiner:
    """A refiner for `kgradcam.runs.detect`; the boxes are those of `refine_run` afterwards.

    Args:
        path: A file of `Refiner.save`.

    Attributes:
        info: The file and its digest, for `run.json`.

    Raises:
        UserError: The file is missing or holds something else.

    Example:
        run = detect(configuration, Path("runs/test"), refiner=RunRefiner(Path("refiner.json")))
    """

    def __init__(self, path: Path) -> None:
        self._refiner = load_refiner(path)
        self.info = RefinerInfo(str(path), file_digest(path))

    def require_fitting(self, folder: Path, model: str, images: Iterable[Image]) -> None:
        """Checks that it may refine a run; see `refiner.require_fitting`."""
        require_fitting(self._refiner, folder, model, images)

    def __call__(
        self,
        heatmaps: Iterable[ClassHeatmap],
        images: Sequence[Image],
        classifier: "Classifier",
        layer: str | tuple[str, ...] | None,
        dataset: "Dataset",
        advance: Advance = ignore,
    ) -> Detections:
        """Returns the refined boxes of heatmaps; see `kgradcam.runs.detection.BoxRefiner`."""
        network = None
        if self._refiner.network:
            from kgradcam.refine.network import Network

            network = Network(classifier, layer, dataset, images)
        return refine_heatmaps(self._refiner, heatmaps, images, network, advance)
