"""How many boxes are right from which score on: the cost of a review, before it begins."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError
from kgradcam.metrics.average_precision import evaluate
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.tables import Detections, GroundTruth


@dataclass(frozen=True)
class ScorePrecision:
    """The boxes of all classes by score, the most confident first.

    Attributes:
        scores: float64 `[boxes]`, falling.
        hits: bool `[boxes]`: whether each is right.
        objects: The number of objects to find.
    """

    scores: npt.NDArray[np.float64]
    hits: npt.NDArray[np.bool_]
    objects: int

    def at(self, score: float) -> tuple[int, float, float]:
        """Returns the number of boxes from a score on, their precision, and the recall.

        The precision is NaN without a box, the recall without an object.
        """
        count = int((self.scores >= score).sum())
        right = int(self.hits[:count].sum())
        return (
            count,
            right / count if count else float("nan"),
            right / self.objects if self.objects else float("nan"),
        )

    def lowest_score(self, precision: float) -> float:
        """Returns the lowest score from which on the boxes have at least a precision.

        Raises:
            UserError: No score gives it.
        """
        # Boxes of equal scores are kept or dropped together.
        last = np.flatnonzero(np.append(self.scores[1:] < self.scores[:-1], True))
        values = np.cumsum(self.hits)[last] / (last + 1) if len(self.scores) else np.zeros(0)
        enough = np.flatnonzero(values >= precision)
        if not len(enough):
            best = f"{values.max():.2f}" if len(values) else "none, since there is no box"
            raise UserError(
                f"No score gives a precision of {precision:g}. The highest is {best}. Give a lower "
                "--min-precision."
            )
        return float(self.scores[last[enough[-1]]])


def score_precision(
    ground_truth: GroundTruth, detections: Detections, iou: float = 0.5
) -> ScorePrecision:
    """Matches boxes with objects as VOC does, and sorts them by score.

    Args:
        ground_truth: The objects; a box on a difficult one does not count.
        detections: The boxes.
        iou: The intersection over union from which a box is right.

    Raises:
        UserError: There is no object to compare with.
    """
    results = evaluate(ground_truth, detections, find_protocol("voc2010"), [iou])
    objects = sum(each.ground_truths for each in results)
    if not objects:
        raise UserError("There is no annotated box to compare with. Give --ground-truth FILE.")
    scores = np.concatenate([np.zeros(0), *(each.scores for each in results)])
    hits = np.concatenate([np.zeros(0, bool), *(each.hits for each in results)])
    order = np.argsort(-scores, kind="stable")
    return ScorePrecision(scores[order], hits[order], objects)
