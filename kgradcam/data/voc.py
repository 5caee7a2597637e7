"""PASCAL VOC: its 20 classes, its annotation files and its segmentation masks.

VOC counts pixels from 1 and includes the last one. `parse_annotation` converts such a box to xyxy
from 0, half-open: `xmin - 1, ymin - 1, xmax, ymax`. `write_annotation` converts it back.

An annotation belongs to the image with the same stem. File names and paths inside an annotation
are ignored.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from kgradcam.data.examples import Objects
from kgradcam.data.flags import parse_flag
from kgradcam.errors import UserError
from kgradcam.files import open_regular

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
_MAX_BYTES = 2**24  # real annotations have a few kilobytes


def parse_annotation(path: Path) -> Objects:
    """Reads a VOC annotation file.

    Many labelling tools omit pose, truncated and difficult; the defaults are unspecified, false and
    false. The image size in the file is often wrong, so it does not affect the boxes. Tags are read
    in any case and without namespace, and `<annotation>` may be inside another element.

    Args:
        path: An XML file.

    Returns:
        Its objects, in the file's order.

    Raises:
        UserError: The file cannot be read, is not well-formed, has a document type, or does not
            hold one `<annotation>`; or an object has no name, no box, a box that is inverted or
            not finite, or a flag that is neither 0 nor 1.
    """
    try:
        with open_regular(path) as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"No annotation {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if len(text) > _MAX_BYTES:
        raise UserError(f"{path} is too large for an annotation: more than {_MAX_BYTES:,} bytes.")
    try:
        return _parse_objects(_parse_xml(text))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ET.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path}: not readable XML: {error}") from error


def _parse_xml(text: bytes) -> ET.Element:
    """Returns the `<annotation>`, with its tags in lower case and without namespaces."""
    declared = re.match(rb"""<\?xml[^>]*encoding=["']([\w.-]+)["']""", text)
    parser = ET.XMLParser(target=_WithoutDocumentType())
    try:
        root = ET.fromstring(text, parser)
    except ValueError:  # expat reads no encoding of several bytes, such as GB2312
        if not declared:
            raise
        decoded = text.decode(declared[1].decode()).partition("?>")[2]
        root = ET.fromstring(decoded, ET.XMLParser(target=_WithoutDocumentType()))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2].lower()
    if root.tag == "annotation":
        return root
    # VOC's own <source> has an <annotation> too.
    parents = (element for element in root.iter() if element.tag != "source")
    found = [child for parent in parents for child in parent if child.tag == "annotation"]
    if len(found) != 1:
        raise UserError(
            f"it must hold one <annotation>. Received: {len(found)}, in <{root.tag[:40]}>."
        )
    return found[0]


def _parse_objects(annotation: ET.Element) -> Objects:
    elements = list(annotation.iter("object"))
    names = tuple((element.findtext("name") or "").strip() for element in elements)
    for i, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"an object has no name: object {i}.")
    pairs = list(zip(elements, names, strict=True))
    boxes = np.array([_parse_box(element, name) for element, name in pairs], dtype=np.float64)
    return Objects(
        names=names,
        boxes=boxes.reshape(-1, 4),
        difficult=np.array([_is_set(element, "difficult") for element in elements], dtype=bool),
        poses=tuple(_parse_pose(element) for element in elements),
        truncated=np.array([_is_set(element, "truncated") for element in elements], dtype=bool),
        image_size=_parse_size(annotation),
    )


class _WithoutDocumentType(ET.TreeBuilder):
    """Rejects document types: only they can define entities, which expand or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise UserError("it has a document type (<!DOCTYPE>); an annotation needs none.")


def _parse_size(annotation: ET.Element) -> tuple[int, int] | None:
    texts = [annotation.findtext(f"size/{tag}", "") for tag in ("width", "height")]
    try:
        width, height = (int(float(text)) for text in texts)
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _parse_pose(element: ET.Element) -> str:
    pose = (element.findtext("pose") or "").strip().lower()
    return pose if pose in POSES else "unspecified"


def _is_set(element: ET.Element, tag: str) -> bool:
    return parse_flag(element.findtext(tag), f"<{tag}>")


def _parse_box(element: ET.Element, name: str) -> tuple[float, float, float, float]:
    texts = [element.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(text or "") for text in texts)
    except ValueError:
        raise UserError(f"{name!r}: a bndbox needs four numbers. Received: {texts}.") from None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or xmax < xmin or ymax < ymin:
        raise UserError(f"{name!r}: a bndbox is inverted or not finite. Received: {texts}.")
    return xmin - 1, ymin - 1, xmax, ymax


def write_annotation(
    file_name: str, width: int, height: int, names: Sequence[str], boxes: npt.ArrayLike
) -> str:
    """Returns a VOC annotation as XML text.

    Args:
        file_name: The file name of the image.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        names: The class name of each object.
        boxes: `[objects, 4]` whole numbers, xyxy in pixels from 0, half-open.

    Example:
        >>> xml = write_annotation("1.jpg", 500, 375, ["dog"], [[47, 239, 195, 371]])
        >>> "<xmin>48</xmin>" in xml and "<xmax>195</xmax>" in xml
        True
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


def class_mask(
    labels: npt.NDArray[np.uint8], class_name: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Splits the labels of a `SegmentationClass` image into a mask of a class and one of void.

    Args:
        labels: uint8 `[height, width]`: 0 is background, 1 to 20 are `CLASSES`, 255 is void.
        class_name: One of `CLASSES`.

    Returns:
        The pixels of the class and the void pixels; both bool `[height, width]`.
    """
    return labels == CLASSES.index(class_name) + 1, labels == 255
