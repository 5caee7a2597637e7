"""What several test files share and call by name; fixtures are in `conftest.py`."""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import PIL.Image

from kgradcam.boxes.options import BoxOptions
from kgradcam.data import voc
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.run_info import DatasetInfo, ModelInfo, RunInfo
from kgradcam.runs.tables import Detections, GroundTruth, Image
from kgradcam.runs.whole_run import digests

# Heatmaps as the layer has them, for tests that compute by hand what a run must hold.
PLAIN: dict[str, Any] = {"image_size": None, "score_scales": (), "refine": False}

EMPTY: Mapping[str, bytes] = MappingProxyType({})


@dataclass
class TinyVoc:
    """A folder in VOC layout, filled by hand."""

    root: Path

    def add(
        self,
        name: str,
        objects: Sequence[tuple[str, Sequence[int]]] = (),
        size: tuple[int, int] = (40, 30),
        difficult: bool = False,
    ) -> None:
        """Adds an image, a bright square at each box, and its annotation; boxes as ours."""
        width, height = size
        image = np.full((height, width, 3), 40, np.uint8)
        for _, (xmin, ymin, xmax, ymax) in objects:
            image[ymin:ymax, xmin:xmax] = 220
        PIL.Image.fromarray(image).save(self.root / "JPEGImages" / f"{name}.jpg", quality=95)
        names, boxes = [each for each, _ in objects], [box for _, box in objects]
        text = voc.write_annotation(f"{name}.jpg", width, height, names, boxes)
        if difficult:
            text = text.replace("<difficult>0", "<difficult>1")
        (self.root / "Annotations" / f"{name}.xml").write_text(text)

    def split(self, name: str, *image_ids: str) -> None:
        """Lists images in `ImageSets/Main`."""
        lists = self.root / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{name}.txt").write_text("".join(f"{each}\n" for each in image_ids))


def rewrite_keras_file(
    source: Path, target: Path, change: Callable[[Any], None], more: Mapping[str, bytes] = EMPTY
) -> Path:
    """Copies a `.keras` file with another config.json, and more entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                content = json.loads(data)
                change(content)
                data = json.dumps(content).encode()
            new.writestr(name, data)
        for name, data in more.items():
            new.writestr(name, data)
    return target


class Result:
    """What a command printed and how it exited."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def made_up_info(thresholds: Sequence[float] = (0.3, 0.6), **options: Any) -> RunInfo:
    """The description of a run of no dataset and no model, with the single-threshold rules."""
    options.setdefault("boxes", BoxOptions("single-threshold", 0, "heat"))
    return RunInfo(
        configuration=Configuration(thresholds=tuple(thresholds), **options),
        dataset=DatasetInfo("made up", "all", 9, "0", "0"),
        model=ModelInfo("none", "none", 0, "0", "0", {"cat": (0,), "dog": (1,)}),
        versions={"kgradcam": "0"},
        determinism="Complete.",
    )


def sign(folder: Path) -> Path:
    """Lists the files of a run in run.json as they are now, as a stranger can who changes them."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": digests(folder)}))
    return folder


def truth(*rows: tuple[int, int, list[float], bool], images: int = 3) -> GroundTruth:
    return GroundTruth(
        images=tuple(Image(i, f"{i}.jpg", 50, 40) for i in range(1, images + 1)),
        categories=("cat", "dog"),
        image_ids=np.array([row[0] for row in rows], np.int64),
        category_ids=np.array([row[1] for row in rows], np.int64),
        boxes=np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        difficult=np.array([row[3] for row in rows], bool),
    )


def found(*rows: tuple[int, int, list[float], float]) -> Detections:
    return Detections(
        image_ids=np.array([row[0] for row in rows], np.int64),
        category_ids=np.array([row[1] for row in rows], np.int64),
        boxes=np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        scores=np.array([row[3] for row in rows], np.float64),
    )


def some_boxes(seed: int, ties: bool, difficult: bool = False) -> tuple[GroundTruth, Detections]:
    """A dozen images with up to three objects and four boxes of two classes, near one another."""
    generator = np.random.default_rng(seed)
    truths, boxes = [], []
    for image_id in range(1, 13):
        for category_id in (1, 2):
            for _ in range(generator.integers(0, 4)):
                low = generator.integers(0, 60, 2)
                box = [*low, *(low + generator.integers(8, 40, 2))]
                truths.append((image_id, category_id, box, bool(generator.random() < 0.3)))
                for _ in range(generator.integers(0, 3)):
                    moved = np.array(box) + generator.integers(-5, 6, 4)
                    moved = [*np.minimum(moved[:2], moved[2:] - 1), *moved[2:]]
                    score = generator.integers(1, 4) / 4 if ties else generator.random()
                    boxes.append((image_id, category_id, moved, score))
            if generator.random() < 0.3:
                score = 0.5 if ties else generator.random()
                boxes.append((image_id, category_id, [70, 70, 90, 95], score))
    if not difficult:
        truths = [(*each[:3], False) for each in truths]
    images = tuple(Image(i, f"{i}.jpg", 120, 120) for i in range(1, 13))
    boxes.sort(key=lambda each: each[0])  # pycocotools goes image by image
    image_ids, category_ids, corners, difficulties = zip(*truths, strict=True)
    ground_truth = GroundTruth(
        images,
        ("cat", "dog"),
        np.array(image_ids),
        np.array(category_ids),
        np.array(corners, np.float64),
        np.array(difficulties),
    )
    return ground_truth, found(*boxes)


class StopError(Exception):
    """Stops a training where a test wants it."""


def stop_after(epochs: int) -> Callable[[str], None]:
    """Returns a `report` that stops a training after so many epochs."""

    def report(line: str) -> None:
        nonlocal epochs
        epochs -= line.startswith("epoch")
        if not epochs:
            raise StopError

    return report
