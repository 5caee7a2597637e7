"""Fuzz targets: for any bytes a reader must return a valid value or raise a `UserError`."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers import made_up_info, sign

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.normalization import normalize
from kgradcam.boxes.options import BoxOptions
from kgradcam.boxes.scores import score_boxes
from kgradcam.boxes.single_threshold import single_threshold_boxes, single_threshold_boxes_at
from kgradcam.data.images import image_size, read_image
from kgradcam.data.voc import POSES, parse_annotation
from kgradcam.data.voc_folder import VocFolder
from kgradcam.errors import UserError
from kgradcam.models.torch_checkpoint import read_checkpoint
from kgradcam.runs.coco_files import read_detections, read_ground_truth
from kgradcam.runs.drawn_boxes import draw_boxes
from kgradcam.runs.heatmap_files import read_heatmaps
from kgradcam.runs.run import Run

FOLDER = Path(tempfile.mkdtemp(prefix="kgradcam-fuzzing-"))


def _file(data: bytes, name: str) -> Path:
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def annotation(data: bytes) -> None:
    """An annotation in XML, with finite boxes of positive size."""
    objects = parse_annotation(_file(data, "x.xml"))
    count = len(objects.names)
    assert objects.boxes.shape == (count, 4)
    assert np.isfinite(objects.boxes).all()
    assert (objects.boxes[:, 2:] - objects.boxes[:, :2] >= 1).all()
    assert len(objects.difficult) == len(objects.truncated) == len(objects.poses) == count
    assert set(objects.poses) <= set(POSES)
    assert all(objects.names)


def image_list(data: bytes) -> None:
    """A list in ImageSets, whose names must not lead out of the folder."""
    for part in ("JPEGImages", "Annotations"):
        (FOLDER / "voc" / part).mkdir(parents=True, exist_ok=True)
    _file(data, "voc/ImageSets/Main/x.txt")
    folder = VocFolder(FOLDER / "voc")
    if "x" not in folder.split_files:
        return
    for image_id in folder.image_ids("x"):
        try:
            path = folder.annotation_path(image_id)
        except UserError:
            continue
        assert (FOLDER / "voc/Annotations").resolve() in Path(*path.parts).absolute().parents
        assert ".." not in path.parts


def picture(data: bytes) -> None:
    """An image in any format."""
    if (size := np.prod(image_size(data))) > 10**6:
        return
    pixels = read_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[0] * pixels.shape[1] == size


def checkpoint(data: bytes) -> None:
    """A PyTorch checkpoint, whose arrays must not be larger than the file."""
    arrays = read_checkpoint(_file(data, "x.pth"))
    assert sum({id(array): array.nbytes for array in arrays.values()}.values()) <= len(data)


def coco(data: bytes) -> None:
    """COCO ground truth, with results for it under the key `results`."""
    truth = read_ground_truth(_file(data, "x.json"))
    found = json.loads(data).get("results", [])
    detections = read_detections(_file(json.dumps(found).encode(), "y.json"), truth)
    assert np.isfinite(detections.boxes).all()


TRUTH = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 12, "height": 8}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}],
}
INFO = made_up_info([0.5], boxes=BoxOptions(smooth_radius=2, score="heat")).to_json()
INFO |= {
    "counts": {"images": 1, "heatmaps": 0, "objects": 1, "skipped": 0},
    "files": {
        "ground_truth.json": hashlib.sha256(json.dumps(TRUTH).encode()).hexdigest()[:16],
    },
}


def heatmaps(data: bytes) -> None:
    """A heatmap file of a run, whose heatmaps must not be larger than the file."""
    _file(json.dumps(TRUTH).encode(), "run/ground_truth.json")
    path = _file(data, "run/heatmaps/0.npz")
    counts = {**INFO["counts"], "heatmaps": sum(1 for _ in read_heatmaps(path))}
    _file(json.dumps(INFO | {"counts": counts}).encode(), "run/run.json")
    run = Run(sign(FOLDER / "run"))
    records = list(run.heatmaps())
    # Two bytes of uint16 become four of float32.
    assert sum(record.heatmap.nbytes for record in records) <= 2 * len(data)
    ((boxes),) = draw_boxes(records, run.ground_truth.images, [0.5], [2], run.options).values()
    assert (boxes.boxes >= 0).all()
    assert ((boxes.scores >= 0) & (boxes.scores <= 1)).all() or not records


def run_json(data: bytes) -> None:
    """The `run.json` of a run."""
    _file(json.dumps(TRUTH).encode(), "described/ground_truth.json")
    _file(data, "described/run.json")
    run = Run(FOLDER / "described")
    assert all(0 <= threshold <= 1 for threshold in run.thresholds)
    radius = min(run.options.smooth_radius, 50)
    draw_boxes(run.heatmaps(), run.ground_truth.images, run.thresholds[:3], [radius], run.options)


def boxes(data: bytes) -> None:
    """A heatmap: boxes must lie in the image and, with little smoothing, contain all hot pixels."""
    if len(data) < 8:
        return
    height, width, tall, wide, *rest = data[:8]
    values = np.frombuffer(data[8 : 8 + (len(data) - 8) // 4 * 4], "<f4")
    height, width = height % 12 + 1, width % 12 + 1
    values = np.resize(values, (height, width)) if len(values) else np.zeros((height, width))
    size = (wide % 60 + 1, tall % 60 + 1)
    heatmap = normalize(values, size)
    assert heatmap.shape == size[::-1]
    assert ((heatmap >= 0) & (heatmap <= 1)).all()
    thresholds, radius = [rest[0] / 255, rest[1] / 255], rest[2] % 30
    for threshold, found in zip(
        thresholds, single_threshold_boxes_at(heatmap, thresholds, radius), strict=True
    ):
        np.testing.assert_array_equal(found, single_threshold_boxes(heatmap, threshold, radius))
        assert (found[:, :2] >= 0).all()
        assert (found[:, 2:] <= size).all()
        assert (found[:, 2:] > found[:, :2]).all()
        scores = score_boxes(heatmap, found, 0.5, "heat")
        assert ((scores >= 0) & (scores <= 0.5)).all()
        if radius < 2 and heatmap.max() > np.float32(threshold):
            y, x = np.nonzero(heatmap > np.float32(threshold))
            inside = (found[:, None, 0] <= x) & (x < found[:, None, 2])
            inside &= (found[:, None, 1] <= y) & (y < found[:, None, 3])
            assert inside.any(axis=0).all()
    found, scores = find_boxes(values, size, rest[3] / 255, thresholds[0])
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= np.array(size) + 1e-6).all()
    assert ((scores >= 0) & (scores <= 1)).all()


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        *(annotation, image_list, picture, checkpoint, coco, heatmaps),
        *(run_json, boxes),
    )
}


def feed(name: str, data: bytes) -> None:
    """Passes bytes to a reader; any exception other than `UserError` is a bug."""
    with contextlib.suppress(UserError):
        TARGETS[name](data)
