"""COCO JSON with its pictures: a file, or a folder that holds one for each split.

Boxes are `[x, y, width, height]`. A crowd counts as a difficult object. An annotation without
`bbox` labels its image. A mistake in the structure stops the reading; an image whose annotation is
unusable is left out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kgradcam.data.coco_schema import (
    BOX,
    ID,
    SIZE,
    TEXT,
    entries,
    field,
    is_difficult,
    numbered,
)
from kgradcam.data.examples import Objects, boxed
from kgradcam.data.images import SUFFIXES
from kgradcam.data.named_files import NamedFiles
from kgradcam.data.reading import Entry, Place, Reading, read_entries
from kgradcam.errors import UserError, errors_in_file
from kgradcam.files import read_json

_NAMES = (
    "instances.json",
    "annotations.json",
    "annotations/instances.json",
    "_annotations.coco.json",  # of Roboflow
    "labels.json",  # of FiftyOne
    "result.json",  # of Label Studio
)
_Annotation = tuple[str, dict[str, Any]]
"""The place of an annotation in the file, and its content."""


def coco_splits(root: Path) -> dict[str, Path]:
    """Returns the COCO file of each split; empty for another layout."""
    if root.suffix.lower() == ".json" and root.is_file():
        return {"all": root}
    found = {
        path.stem.removeprefix("instances_"): path
        for path in sorted(root.glob("annotations/instances_*.json"))
    }
    found |= {path.parent.name: path for path in sorted(root.glob("*/_annotations.coco.json"))}
    whole = [root / name for name in _NAMES if (root / name).is_file()]
    return found or ({"all": whole[0]} if whole else {})


def read_coco(place: Place, split: str, quiet: bool, clip: bool) -> Reading:
    """Reads the images of a COCO file, in its order; those without annotation have no objects."""
    path = coco_splits(place.root)[split]
    content = read_json(path)
    with errors_in_file(path, "COCO ground truth"):
        if not isinstance(content, dict) or "images" not in content:
            raise UserError("it must be an object with 'images', 'annotations' and 'categories'.")
        names = _category_names(content)
        images = list(entries(content["images"], "images"))
        ids = [field(*each, "id", ID) for each in images]
        numbered("images", ids)
        file_names = [field(*each, "file_name", TEXT) for each in images]
        by_image: defaultdict[str, list[_Annotation]] = defaultdict(list)
        known = {str(each) for each in ids}
        for where, annotation in entries(content.get("annotations", []), "annotations"):
            image_id = str(field(where, annotation, "image_id", ID))
            if image_id not in known:
                raise UserError(f"{where}.image_id must be the id of a listed image: {image_id!r}.")
            by_image[image_id].append((where, annotation))
    files = _find_images(place, path, split, file_names)
    found = (
        Entry(name, path, _Annotated(image, by_image[str(each)], names, clip))
        for name, path, image, each in zip(
            file_names, _paths(files, file_names), images, ids, strict=True
        )
    )
    results = read_entries(found, len(file_names), quiet)
    return Reading(results, tuple(dict.fromkeys(names.values())))


def _category_names(content: Mapping[str, Any]) -> dict[str, str]:
    """Returns the name of each category by the text of its id, in the order of the file."""
    categories = list(entries(content.get("categories", []), "categories"))
    ids = [field(*each, "id", ID) for each in categories]
    numbered("categories", ids)
    names = [field(*each, "name", TEXT).strip() for each in categories]
    for (place, _), name in zip(categories, names, strict=True):
        if not name:
            raise UserError(f"{place}.name must be the name of a class. Received: ''.")
    return dict(zip(map(str, ids), names, strict=True))


class _Annotated:
    """Returns the objects of an image, when its size is known."""

    def __init__(
        self,
        image: _Annotation,
        annotations: Sequence[_Annotation],
        names: Mapping[str, str],
        clip: bool,
    ) -> None:
        self._image, self._annotations = image, annotations
        self._names, self._clip = names, clip

    def __call__(self, size: tuple[int, int]) -> Objects:
        stated = tuple(field(*self._image, name, SIZE, 0) for name in ("width", "height"))
        if all(stated) and stated != size:
            raise UserError(
                f"The file has {size[0]}x{size[1]} pixels, and its annotation is for "
                f"{stated[0]}x{stated[1]}."
            )
        names, boxes, difficult, labels = [], [], [], []
        for place, annotation in self._annotations:
            category = str(field(place, annotation, "category_id", ID))
            if category not in self._names:
                known = ", ".join(self._names) or "none"
                raise UserError(f"{place}.category_id is {category}. Listed: {known[:200]}.")
            if annotation.get("bbox") in (None, []):
                labels.append(self._names[category])
                continue
            x, y, width, height = field(place, annotation, "bbox", BOX)
            names.append(self._names[category])
            boxes.append([x, y, x + width, y + height])
            difficult.append(is_difficult(place, annotation))
        return boxed(names, boxes, size, self._clip, difficult, labels)


def _find_images(place: Place, path: Path, split: str, names: Sequence[str]) -> NamedFiles:
    """Returns the files of the first folder that holds one of the first images of the file."""
    above = path.parent.parent
    folders = (
        [place.images]
        if place.images
        else [
            *(path.parent / name for name in ("images", "data", split)),
            *(above / name for name in (f"images/{split}", split, "images")),
            path.parent,
        ]
    )
    for folder in folders:
        if folder.is_dir():
            files = NamedFiles(folder, SUFFIXES)
            if any(name in files for name in names[:100]) or place.images:
                return files
    tried = ", ".join(str(folder) for folder in folders if folder.is_dir()) or str(folders[0])
    raise UserError(
        f"{path} names {', '.join(map(repr, names[:1])) or 'no image'}, which is not in {tried}. "
        "Give the folder of the images with --images DIR."
    )


def _paths(files: NamedFiles, names: Sequence[str]) -> list[Path]:
    """Returns the file of each name; one that cannot exist for a name without a file of its own.

    The file `sub/a.jpg` also fits the name `a.jpg`, unless it is listed by its own name.
    """
    listed = set(names)
    paths = []
    for name in names:
        try:
            path = files.find(name)
        except UserError:  # it leads out of the folder, or fits several files
            path = None
        own = "" if path is None else path.relative_to(files.folder).as_posix()
        if path is None or (own != name and own in listed):
            path = files.folder / name.replace("..", "_").lstrip("/\\")
        paths.append(path)
    return paths
