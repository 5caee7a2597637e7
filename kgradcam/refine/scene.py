"""A heatmap and the feature maps of its image, which describe any box; and what is annotated."""

from dataclasses import dataclass, replace

import numpy as np

from kgradcam.boxes.normalization import Heatmap
from kgradcam.boxes.overlap import Boxes
from kgradcam.refine.candidates import Candidates, candidates_on, describe
from kgradcam.refine.pooling import Maps, Reduction


@dataclass(frozen=True)
class Scene:
    """An image, seen for one class.

    Attributes:
        canvas: float32 `[height, width]` in [0, 1], the heatmap; see `level_canvas`.
        size: `(width, height)` of the image in pixels.
        probability: The model's probability of the class, in [0, 1].
        network: Pools the features of the network; `None` without a network.
        maps: The components of the feature maps of the image.
    """

    canvas: Heatmap
    size: tuple[int, int]
    probability: float
    network: Reduction | None = None
    maps: Maps = ()

    def candidates(self) -> Candidates:
        """Returns the candidates of `find_candidates`, with the features of the network if any."""
        found = candidates_on(self.canvas, self.size, self.probability)
        if self.network is None:
            return found
        return replace(found, network=self.network.inputs(self.maps, found.boxes, self.size))

    def describe(self, boxes: Boxes) -> Candidates:
        """Returns boxes with the features that `find_candidates` would give them; scores are 0.

        Args:
            boxes: `[boxes, 4]`, xyxy in pixels, inside the image.
        """
        limits = np.array(self.canvas.shape[::-1])
        small = boxes * np.tile(limits / self.size, 2)
        features = describe(self.canvas, small, self.probability)
        network = self.network.inputs(self.maps, boxes, self.size) if self.network else None
        return Candidates(boxes, np.zeros(len(boxes)), features, network)


_UNSEEN = Scene(np.zeros((1, 1), np.float32), (1, 1), 0.0)


@dataclass(frozen=True)
class Annotated:
    """The candidates of one heatmap, and the objects of its class.

    Attributes:
        image: The file name of the image.
        candidates: The candidates.
        objects: float64 `[objects, 4]`, xyxy in pixels.
        image_id: The id of the image in its run.
        scene: Describes boxes that are no candidates; policies need it.
    """

    image: str
    candidates: Candidates
    objects: Boxes
    image_id: int = 0
    scene: Scene = _UNSEEN
