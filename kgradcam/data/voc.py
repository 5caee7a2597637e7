"""PASCAL VOC on disk: its 20 classes, its folders, and its annotation files.

VOC's integers count pixels from 1 and include the last one. `parse_annotation` is the edge at which
they become kgradcam's boxes, counted from 0 and half-open: `xmin - 1, ymin - 1, xmax, ymax`.

An annotation belongs to the picture of its own file name. The names and paths that stand inside
annotations are not followed, and those in image lists never lead out of the folder.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from kgradcam.errors import UserError, did_you_mean

# Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010.
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
POSES = ("frontal", "rear", "left", "right", "unspecified")
WHOLE_FOLDER = "all"
"""The split that holds every annotated image of a folder."""
_MOST_BYTES = 2**24
"""Of an annotation, whose like is some kilobytes."""
_LABELS = ("-1", "0", "1")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


@dataclass(frozen=True, slots=True)
class Objects:
    """The annotated objects of one image.

    Attributes:
        names: The class name of each object.
        boxes: float64 `[objects, 4]`, xyxy in pixels from 0, half-open.
        difficult: bool `[objects]`; false where the annotation does not say.
        poses: The pose of each object, one of `POSES`; `"unspecified"` where it says nothing else.
        truncated: bool `[objects]`; false where the annotation does not say.
        image_size: Width and height of the picture, as the annotation tells them; `None` if it
            does not.
    """

    names: tuple[str, ...]
    boxes: npt.NDArray[np.float64]
    difficult: npt.NDArray[np.bool_]
    poses: tuple[str, ...]
    truncated: npt.NDArray[np.bool_]
    image_size: tuple[int, int] | None = None


NO_OBJECTS = Objects((), np.zeros((0, 4)), np.zeros(0, bool), (), np.zeros(0, bool))
"""What an image without annotation holds."""


def parse_annotation(path: Path) -> Objects:
    """Reads a VOC annotation file.

    Labelling tools often leave out pose, truncated and difficult: they read as unspecified, false
    and false. Boxes count pixels of the picture itself: the size in the file is not always its own.

    A file with a document type is refused, as only such a file can hold an entity that expands into
    gigabytes or names another file.

    Args:
        path: An XML file.

    Returns:
        Its objects, in the file's order.

    Raises:
        UserError: The file cannot be read, is not well-formed, has a document type, or an object
            lacks its name or its box, or has a box that is inverted or no number.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"No annotation {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if len(text) > _MOST_BYTES:
        raise UserError(f"{path} is too large for an annotation: over {_MOST_BYTES:,} bytes.")
    try:
        root = ET.fromstring(text, ET.XMLParser(target=_WithoutDocumentType()))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ET.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path}: no readable XML: {error}") from error
    elements = root.findall("object")
    boxes = np.array([_parse_box(element, path) for element in elements], dtype=np.float64)
    names = tuple((element.findtext("name") or "").strip() for element in elements)
    if not all(names):
        raise UserError(f"{path}: an object has no name.")
    return Objects(
        names=names,
        boxes=boxes.reshape(-1, 4),
        difficult=np.array([_is_set(element, "difficult") for element in elements], dtype=bool),
        poses=tuple(_parse_pose(element) for element in elements),
        truncated=np.array([_is_set(element, "truncated") for element in elements], dtype=bool),
        image_size=_parse_size(root),
    )


class _WithoutDocumentType(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise UserError("it has a document type (<!DOCTYPE>), which no annotation needs.")


def _parse_size(root: ET.Element) -> tuple[int, int] | None:
    try:
        return int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
    except ValueError:
        return None


def _parse_pose(element: ET.Element) -> str:
    pose = (element.findtext("pose") or "").strip().lower()
    return pose if pose in POSES else "unspecified"


def _is_set(element: ET.Element, tag: str) -> bool:
    return (element.findtext(tag) or "").strip() == "1"


def _parse_box(element: ET.Element, path: Path) -> tuple[float, float, float, float]:
    texts = [element.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(text or "") for text in texts)
    except ValueError:
        raise UserError(f"{path}: a bndbox needs four numbers. Received: {texts}.") from None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or xmax < xmin or ymax < ymin:
        raise UserError(f"{path}: a bndbox is inverted or not finite. Received: {texts}.")
    return xmin - 1, ymin - 1, xmax, ymax


def write_annotation(
    file_name: str, width: int, height: int, names: Sequence[str], boxes: npt.ArrayLike
) -> str:
    """Returns a VOC annotation as XML text.

    Args:
        file_name: The picture's file name.
        width: Its width in pixels.
        height: Its height in pixels.
        names: The class name of each object.
        boxes: `[objects, 4]` whole numbers, xyxy from 0, half-open; written from 1, inclusive.
    """
    root = ET.Element("annotation")
    ET.SubElement(root, "folder").text = "JPEGImages"
    ET.SubElement(root, "filename").text = file_name
    size = ET.SubElement(root, "size")
    for tag, number in (("width", width), ("height", height), ("depth", 3)):
        ET.SubElement(size, tag).text = str(number)
    for name, (xmin, ymin, xmax, ymax) in zip(names, np.asarray(boxes), strict=True):
        element = ET.SubElement(root, "object")
        for tag, text in (
            ("name", name),
            ("pose", "Unspecified"),
            ("truncated", "0"),
            ("difficult", "0"),
        ):
            ET.SubElement(element, tag).text = text
        bndbox = ET.SubElement(element, "bndbox")
        for tag, value in (("xmin", xmin + 1), ("ymin", ymin + 1), ("xmax", xmax), ("ymax", ymax)):
            ET.SubElement(bndbox, tag).text = str(round(value))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


@dataclass(frozen=True)
class VocFolder:
    """A folder with `JPEGImages/`, `Annotations/` and, maybe, `ImageSets/Main/`.

    Args:
        root: The folder; or one that holds a single such folder, as `VOCdevkit` holds `VOC2007`.

    Raises:
        UserError: It is not such a folder.
    """

    root: Path

    def __post_init__(self) -> None:
        root = self.root
        if not root.is_dir():
            raise UserError(f"No folder {root}.")
        if not (root / "JPEGImages").is_dir():
            inside = sorted(path.parent for path in root.glob("*/JPEGImages"))
            if len(inside) != 1:
                found = f" It holds several: {', '.join(map(str, inside))}." if inside else ""
                raise UserError(
                    f"{root} is not in VOC layout: it needs JPEGImages/ and Annotations/.{found}"
                )
            root = inside[0]
        if not (root / "Annotations").is_dir():
            raise UserError(f"{root} is not in VOC layout: it needs Annotations/ with XML files.")
        object.__setattr__(self, "root", root)

    @property
    def split_files(self) -> dict[str, Path]:
        """The image lists of `ImageSets/Main`, by name; VOC's lists for one class are left out."""
        lists = sorted((self.root / "ImageSets" / "Main").glob("*.txt"))
        return {path.stem: path for path in lists if _lists_images(path)}

    def image_ids(self, split: str) -> list[str]:
        """Returns the images of a split, each once, in its list's order.

        Args:
            split: A list's name; `"validation"` also finds VOC's `val`; `"all"` is every annotated
                image, by name.

        Raises:
            UserError: There is no such split, or its list is no text.
        """
        files = self.split_files
        if split == "validation" and split not in files:
            split = "val"
        if split in files:
            lines = _read_text(files[split]).splitlines()
            return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if split == WHOLE_FOLDER:
            return sorted(path.stem for path in (self.root / "Annotations").glob("*.xml"))
        options = [*files, WHOLE_FOLDER]
        raise UserError(
            f"split={split!r} is no split of {self.root}.{did_you_mean(split, options)} "
            f"It has: {', '.join(options)}."
        )

    def annotation_path(self, image_id: str) -> Path:
        """Returns where an image's annotation belongs.

        Raises:
            UserError: The image's name leads out of the folder; so for its other files.
        """
        return self._inside("Annotations", f"{image_id}.xml")

    def image_path(self, image_id: str) -> Path:
        """Returns the image's file; the `.jpg` of VOC if there is none."""
        candidates = [
            self._inside("JPEGImages", f"{image_id}{suffix}") for suffix in _IMAGE_SUFFIXES
        ]
        return next((path for path in candidates if path.is_file()), candidates[0])

    def mask_path(self, image_id: str) -> Path:
        """Returns where the mask of an image's classes belongs; see `class_mask`."""
        return self._inside("SegmentationClass", f"{image_id}.png")

    def _inside(self, part: str, name: str) -> Path:
        """A file in a part of the folder, whatever a list may call it."""
        path = PureWindowsPath(name)  # which knows the separators of all systems
        if path.anchor or ".." in path.parts or "\0" in name:
            raise UserError(f"{name!r} is no name of a file in {self.root / part}.")
        return self.root / part / name


def class_mask(
    labels: npt.NDArray[np.uint8], class_name: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Reads a mask of `SegmentationClass`.

    Args:
        labels: uint8 `[height, width]`: 0 is the background, 1 to 20 are `CLASSES`, 255 is void.
        class_name: One of `CLASSES`.

    Returns:
        Where the class is, and what is void; bool `[height, width]` both.
    """
    return labels == CLASSES.index(class_name) + 1, labels == 255


def _lists_images(path: Path) -> bool:
    """Whether a list names one image a line, and not an image and a label as `dog_train.txt`."""
    words = _read_text(path).partition("\n")[0].split()
    return len(words) < 2 or words[-1] not in _LABELS


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise UserError(f"{path} is no text in UTF-8: {error}.") from error
