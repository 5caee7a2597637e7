"""One writer for each format; each writes its files into an empty folder.

==================  =============================================================================
`voc`               `Annotations/*.xml`, whole pixels; `--dataset` reads them back
`coco`              `instances.json` without scores, `results.json` with them
`yolo`              `labels/*.txt`, six decimals, and `data.yaml`
`label-studio`      `tasks.json` with predictions and scores, and `config.xml` of the interface
`cvat`              `annotations.xml`, CVAT for images 1.1, two decimals
`csv`               `boxes.csv`, a line for each box
==================  =============================================================================
"""

import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from kgradcam.data.voc import write_annotation
from kgradcam.export.labels import LabelledImage, Labels
from kgradcam.runs.coco_files import write_detections, write_ground_truth
from kgradcam.runs.tables import GroundTruth, Image


class Format(NamedTuple):
    """A format.

    Attributes:
        write: Writes the labels into a folder. The prefix precedes the names of images.
        images: The folder of the images in it.
        prefix: The default prefix.
    """

    write: Callable[[Labels, Path, str], None]
    images: str = "images"
    prefix: str = ""


def _write_voc(labels: Labels, folder: Path, prefix: str) -> None:
    for each in labels.images:
        low = np.round(each.boxes[:, :2])
        boxes = np.concatenate([low, np.maximum(np.round(each.boxes[:, 2:]), low + 1)], axis=1)
        names = [labels.categories[i] for i in each.classes]
        image = each.image
        text = write_annotation(prefix + each.name, image.width, image.height, names, boxes)
        _write(folder / "Annotations" / f"{_stem(each.name)}.xml", text)


def _write_coco(labels: Labels, folder: Path, prefix: str) -> None:
    images = tuple(
        Image(i, prefix + each.name, each.image.width, each.image.height)
        for i, each in enumerate(labels.images, start=1)
    )
    found = labels.images.table()
    truth = GroundTruth(
        images,
        labels.categories,
        found.image_ids,
        found.category_ids,
        found.boxes,
        np.zeros(len(found.boxes), bool),
    )
    write_ground_truth(folder / "instances.json", truth)
    write_detections(folder / "results.json", found)


def _write_yolo(labels: Labels, folder: Path, prefix: str) -> None:
    for each in labels.images:
        size = np.array([each.image.width, each.image.height])
        low, high = each.boxes[:, :2], each.boxes[:, 2:]
        numbers = np.concatenate([(low + high) / 2 / size, (high - low) / size], axis=1)
        lines = [
            f"{i} {' '.join(f'{value:.6f}' for value in row)}\n"
            for i, row in zip(each.classes, numbers, strict=True)
        ]
        _write(folder / "labels" / f"{_stem(each.name)}.txt", "".join(lines))
    # Without "path": readers take a relative one from their working directory, not from this file.
    content = {"train": "images", "val": "images", "names": list(labels.categories)}
    _write(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _write_label_studio(labels: Labels, folder: Path, prefix: str) -> None:
    with (folder / "tasks.json").open("w", encoding="utf-8") as file:
        for i, each in enumerate(labels.images):
            text = json.dumps(_task(each, labels, prefix), indent=1, ensure_ascii=False)
            file.write(("," if i else "[") + f"\n{text}".replace("\n", "\n "))
        file.write("\n]" if labels.images else "[]")
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image")
    rectangles = ET.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in labels.categories:
        ET.SubElement(rectangles, "Label", value=name)
    _write(folder / "config.xml", _xml(view))


def _task(each: LabelledImage, labels: Labels, prefix: str) -> dict[str, Any]:
    """A task with one prediction; Label Studio gives boxes in percent of the image."""
    size = np.array([each.image.width, each.image.height])
    percent = 100 * each.boxes / np.tile(size, 2)
    results = [
        {
            "id": f"box-{row}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": each.image.width,
            "original_height": each.image.height,
            "image_rotation": 0,
            "score": float(each.scores[row]),
            "value": {
                "x": xmin,
                "y": ymin,
                "width": xmax - xmin,
                "height": ymax - ymin,
                "rotation": 0,
                "rectanglelabels": [labels.categories[each.classes[row]]],
            },
        }
        for row, (xmin, ymin, xmax, ymax) in enumerate(percent.tolist())
    ]
    prediction = {
        "model_version": labels.source,
        "score": float(each.scores.min()) if len(each.scores) else 0.0,
        "result": results,
    }
    data = {"image": prefix + each.name, "doubt": round(each.doubt, 4)}
    return {"data": data, "predictions": [prediction]}


def _write_cvat(labels: Labels, folder: Path, prefix: str) -> None:
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    ET.SubElement(task, "size").text = str(len(labels.images))
    known = ET.SubElement(task, "labels")
    for name in labels.categories:
        ET.SubElement(ET.SubElement(known, "label"), "name").text = name
    ET.indent(root)
    head, end = ET.tostring(root, encoding="unicode").rsplit("</", 1)
    with (folder / "annotations.xml").open("w", encoding="utf-8") as file:
        file.write(f'<?xml version="1.0" encoding="utf-8"?>\n{head}')
        for i, each in enumerate(labels.images):
            image = _image(i, each, labels, prefix)
            file.write(f"  {ET.tostring(image, encoding='unicode')}\n")
        file.write(f"</{end}\n")


def _image(i: int, each: LabelledImage, labels: Labels, prefix: str) -> ET.Element:
    """The element of an image, as it is indented inside the root."""
    values: dict[str, Any] = {"id": i, "name": prefix + each.name}
    values |= {"width": each.image.width, "height": each.image.height}
    image = ET.Element("image", {key: str(value) for key, value in values.items()})
    for row, box in enumerate(each.boxes):
        values = {"label": labels.categories[each.classes[row]], "source": "auto"}
        values |= {"occluded": 0, "z_order": 0}
        corners = zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)
        values |= {key: f"{value:.2f}" for key, value in corners}
        ET.SubElement(image, "box", {key: str(value) for key, value in values.items()})
    ET.indent(image, level=1)
    return image


def _write_csv(labels: Labels, folder: Path, prefix: str) -> None:
    with (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "class", "xmin", "ymin", "xmax", "ymax", "score", "doubt"])
        for each in labels.images:
            for i, box, score in zip(each.classes, each.boxes, each.scores, strict=True):
                numbers = [*box.tolist(), float(score), each.doubt]
                writer.writerow([prefix + each.name, labels.categories[i], *numbers])


FORMATS = {
    "voc": Format(_write_voc, "JPEGImages"),
    "coco": Format(_write_coco),
    "yolo": Format(_write_yolo),
    "label-studio": Format(_write_label_studio, prefix="/data/local-files/?d=images/"),
    "cvat": Format(_write_cvat),
    "csv": Format(_write_csv),
}
"""The formats by the values of `--format`."""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _xml(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name
