"""COCO's evaluation, computed by pycocotools."""

import io
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kgradcam.errors import UserError
from kgradcam.metrics.bootstrap import with_mean
from kgradcam.progress import redirect_stdout
from kgradcam.runs.coco_files import write_detections, write_ground_truth
from kgradcam.runs.tables import Detections, GroundTruth

MEASURES = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")
"""AP at IoU .50:.05:.95, at .50 and at .75; AR with 1, 10 and 100 detections an image."""


def evaluate_coco(
    ground_truth: GroundTruth, detections: Detections, ignore_difficult: bool = False
) -> dict[str, Mapping[str, float]]:
    """Measures detections with pycocotools.

    Args:
        ground_truth: The annotated boxes.
        detections: The predicted boxes.
        ignore_difficult: Whether difficult objects are passed as COCO's crowds, which are ignored.
            COCO has no difficult objects, so they count like others by default. Crowds of the
            ground truth are always ignored.

    Returns:
        `MEASURES` in [0, 1] by class, and as `"mean"` over several classes; NaN without objects.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UserError("COCO's measures need pycocotools: pip install 'kgradcam[coco]'.") from None
    crowd = ground_truth.crowd | (ground_truth.difficult & ignore_difficult)
    ground_truth = replace(ground_truth, crowd=crowd, file_category_ids=())
    # Through files and COCO's own readers, so that others measure the same on these files.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder)
        write_ground_truth(path / "truth.json", ground_truth)
        write_detections(path / "found.json", detections)
        truth = COCO(str(path / "truth.json"))
        empty = len(detections.boxes) == 0
        found = COCO() if empty else truth.loadRes(str(path / "found.json"))
        if empty:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # precision is [IoU, recall, class, area, detections], recall is [IoU, class, area, detections];
    # -1 is undefined.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    recall = evaluation.eval["recall"][:, :, 0, :]
    by_class = {}
    for k, name in enumerate(ground_truth.categories):
        of_recalls = [recall[:, k, m] for m in range(3)]
        values = [precision[:, :, k], precision[0, :, k], precision[5, :, k], *of_recalls]
        by_class[name] = {
            measure: float(value.mean()) if (value > -1).all() else float("nan")
            for measure, value in zip(MEASURES, values, strict=True)
        }
    return with_mean(by_class)
