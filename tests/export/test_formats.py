"""Exports, read by the tools that they are for; no box moves by more than its format rounds."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml
from helpers import TinyVoc

from kgradcam.data.sources import open_dataset
from kgradcam.errors import UsageError, UserError
from kgradcam.export import Labels, export_run
from kgradcam.export.labels import labels_of_run
from kgradcam.runs.run import Run

Rows = list[tuple[str, str, np.ndarray]]


@pytest.fixture(params=["link", "copy"])
def written(request, run: Run, tmp_path: Path) -> Callable[[str], tuple[Path, Labels]]:
    def write(form: str) -> tuple[Path, Labels]:
        folder = tmp_path / form
        return folder, export_run(run, folder, form, pictures=request.param)

    return write


def rows_of(labels: Labels) -> Rows:
    """The image, the class and the box of each label."""
    return [
        (each.name, labels.categories[i], box)
        for each in labels.images
        for i, box in zip(each.classes, each.boxes, strict=True)
    ]


def assert_same(found: Rows, labels: Labels, atol: float) -> None:
    expected = rows_of(labels)
    assert len(expected) >= 5
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    for (_, _, box), (_, _, wanted) in zip(found, expected, strict=True):
        np.testing.assert_allclose(box, wanted, rtol=0, atol=atol)


def reread(folder: Path, **options: str) -> Rows:
    """The boxes that `--dataset` reads."""
    dataset = open_dataset(str(folder), **options)
    assert dataset.skipped == []
    return [
        (Path(each.file_name).name, name, box)
        for each in dataset.examples
        for name, box in zip(each.objects.names, each.objects.boxes, strict=True)
    ]


@pytest.mark.parametrize(("form", "atol"), [("voc", 0.5), ("coco", 1e-9), ("yolo", 1e-4)])
def test_our_own_layouts_read_them_back(written, form: str, atol: float) -> None:
    folder, labels = written(form)
    assert_same(reread(folder), labels, atol)
    assert json.loads((folder / "export.json").read_text())["boxes"] == len(rows_of(labels))


def test_pycocotools_reads_coco(written) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    folder, labels = written("coco")
    truth = coco.COCO(str(folder / "instances.json"))
    results = truth.loadRes(str(folder / "results.json"))
    assert sorted(each["score"] for each in results.anns.values()) == sorted(
        score for each in labels.images for score in each.scores.tolist()
    )
    found = []
    for annotation in truth.loadAnns(truth.getAnnIds()):
        (image,) = truth.loadImgs(annotation["image_id"])
        (category,) = truth.loadCats(annotation["category_id"])
        x, y, width, height = annotation["bbox"]
        box = np.array([x, y, x + width, y + height])
        found.append((image["file_name"], category["name"], box))
    assert_same(found, labels, 1e-9)


def test_supervision_reads_yolo_voc_and_coco(run: Run, tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    readers = {
        "yolo": ("from_yolo", "images", "labels", "data.yaml", 1e-3),
        "voc": ("from_pascal_voc", "JPEGImages", "Annotations", None, 1.0),
        "coco": ("from_coco", "images", "instances.json", None, 1e-3),
    }
    for form, (reader, images, annotations, names, atol) in readers.items():
        folder = tmp_path / form
        labels = export_run(run, folder, form, pictures="copy")  # it refuses links for COCO
        places = [str(folder / each) for each in (images, annotations, names) if each]
        dataset = getattr(supervision.DetectionDataset, reader)(*places)
        found = [
            (Path(path).name, dataset.classes[i], box)
            for path, _, detections in dataset
            for i, box in zip(detections.class_id, detections.xyxy, strict=True)
        ]
        assert_same(sorted(found, key=lambda row: row[0]), labels, atol)


def test_the_images_of_yolo_are_those_beside_data_yaml(written) -> None:
    """With a relative `path`, ultralytics looks for them in its working directory."""
    folder, labels = written("yolo")
    content = yaml.safe_load((folder / "data.yaml").read_text())
    assert content == {"train": "images", "val": "images", "names": list(labels.categories)}


def test_label_studio_accepts_the_tasks(written) -> None:
    folder, labels = written("label-studio")
    tasks = json.loads((folder / "tasks.json").read_text())
    found = []
    for task in tasks:
        (prediction,) = task["predictions"]
        assert prediction["model_version"].endswith("-gradcam")
        name = task["data"]["image"].rpartition("images/")[2]
        for result in prediction["result"]:
            value = result["value"]
            x, y, width, height = (value[key] / 100 for key in ("x", "y", "width", "height"))
            size = np.tile([result["original_width"], result["original_height"]], 2)
            box = np.array([x, y, x + width, y + height]) * size
            found.append((name, value["rectanglelabels"][0], box))
    assert_same(found, labels, 1e-9)
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    checked = interface.LabelInterface((folder / "config.xml").read_text())
    for task in tasks:
        assert checked.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert checked.validate_prediction(prediction, return_errors=True) == []


def test_cvat(written) -> None:
    folder, labels = written("cvat")
    root = ET.parse(folder / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    corners = ("xtl", "ytl", "xbr", "ybr")
    found = [
        (
            image.attrib["name"],
            box.attrib["label"],
            np.array([float(box.attrib[k]) for k in corners]),
        )
        for image in root.iter("image")
        for box in image.iter("box")
    ]
    assert_same(found, labels, 0.005)


def test_datumaro_reads_cvat(written) -> None:
    datumaro = pytest.importorskip("datumaro")
    folder, labels = written("cvat")
    dataset = datumaro.Dataset.import_from(str(folder), "cvat")
    names = [each.name for each in dataset.categories()[datumaro.AnnotationType.label]]
    found = [
        (item.id, names[each.label], np.array(each.points))
        for item in dataset
        for each in item.annotations
    ]
    expected = sorted(rows_of(labels), key=lambda row: row[0])
    assert [row[1] for row in sorted(found, key=lambda row: row[0])] == [r[1] for r in expected]
    for (_, _, box), (_, _, wanted) in zip(
        sorted(found, key=lambda row: row[0]), expected, strict=True
    ):
        np.testing.assert_allclose(box, wanted, rtol=0, atol=0.006)


def test_csv(written) -> None:
    folder, labels = written("csv")
    rows = list(csv.DictReader((folder / "boxes.csv").read_text().splitlines()))
    corners = ("xmin", "ymin", "xmax", "ymax")
    found = [(r["file"], r["class"], np.array([float(r[k]) for k in corners])) for r in rows]
    assert_same(found, labels, 0)


def changed(run: Run, names: list[str]) -> Run:
    """Gives the images of a run other names."""
    truth = run.ground_truth
    images = [
        replace(image, file_name=name) for image, name in zip(truth.images, names, strict=True)
    ]
    run.__dict__["ground_truth"] = replace(truth, images=tuple(images))
    return run


def test_only_suffixes_and_folders_distinguish_some_pictures(run: Run, tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "x/a.jpg", "c:*.jpg"]
    labels = labels_of_run(changed(run, names))
    expected = ["a.jpg", "a-png.png", "x/a.jpg", "c__.jpg"]
    assert [each.name for each in labels.images] == expected
    export_run(run, tmp_path / "yolo", "yolo", pictures="none")
    written = sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("yolo/**/*.txt")
    )
    assert len(written) == 4
    with pytest.raises(UserError, match="not a file name inside"):
        labels_of_run(changed(run, ["../a.jpg", *names[1:]]))


def test_the_order_of_doubt_and_the_lowest_score(run: Run) -> None:
    labels = labels_of_run(run, order="doubt")
    doubts = [each.doubt for each in labels.images]
    assert doubts == sorted(doubts, reverse=True)
    for each in labels.images:
        assert each.doubt == pytest.approx(float((1 - each.scores).sum()))
    scores = np.concatenate([each.scores for each in labels.images])
    middle = float(np.median(scores))
    kept = labels_of_run(run, middle)
    assert sum(len(each.boxes) for each in kept.images) == (scores >= middle).sum()
    assert len(kept.images) == len(labels.images)


@pytest.mark.parametrize("order", ["name", "doubt"])
def test_the_table_is_the_boxes_of_one_image_after_another(run: Run, order: str) -> None:
    labels = labels_of_run(run, order=order)
    table = labels.images.table()
    for i, each in enumerate(labels.images, start=1):
        rows = table.image_ids == i
        np.testing.assert_array_equal(table.boxes[rows], each.boxes)
        np.testing.assert_array_equal(table.scores[rows], each.scores)
        np.testing.assert_array_equal(table.category_ids[rows], each.classes + 1)
        assert (np.diff(each.scores) <= 0).all()
    assert len(table.boxes) == labels.images.boxes > 0
    assert (np.diff(table.image_ids) >= 0).all()


def test_heatmaps_are_pictures_of_the_size_of_their_image(run: Run, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out", "csv", pictures="none", heatmaps=True)
    paths = sorted((tmp_path / "out" / "heatmaps").glob("*.png"))
    assert [path.name for path in paths][:2] == ["a.jpg.dog.png", "b.jpg.cat.png"]
    with PIL.Image.open(paths[0]) as image:
        assert (image.size, image.mode, image.getextrema()) == ((40, 30), "L", (0, 255))


def test_nothing_is_written_into_a_dataset_or_over_other_files(
    run: Run, pets: TinyVoc, tmp_path: Path
) -> None:
    before = sorted(pets.root.rglob("*"))
    with pytest.raises(UserError, match="which stays as it is"):
        export_run(run, pets.root / "labels", "yolo")
    with pytest.raises(UserError, match="which stays as it is"):
        export_run(run, run.folder / "labels", "yolo")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="is no export"):
        export_run(run, tmp_path / "mine", "yolo", force=True)
    export_run(run, tmp_path / "out", "yolo")
    with pytest.raises(UserError, match="--force"):
        export_run(run, tmp_path / "out", "yolo")
    export_run(run, tmp_path / "out", "voc", force=True)
    assert not (tmp_path / "out" / "data.yaml").exists()
    with pytest.raises(UsageError, match="Did you mean 'coco'"):
        export_run(run, tmp_path / "new", "coca")
    assert sorted(pets.root.rglob("*")) == before
    assert not [path for path in tmp_path.iterdir() if re.match(r"\.(new|out|mine)", path.name)]
