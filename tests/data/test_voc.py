"""VOC annotations: those of many tools, exact integers, clear errors."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.data.voc import parse_annotation, write_annotation
from kgradcam.errors import UserError

BARE = "<annotation><object><name>dog</name>{}</object></annotation>"
BOX = "<bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox>"


def annotation(folder: Path, text: str) -> Path:
    path = folder / "000001.xml"
    path.write_text(text, encoding="utf-8")
    return path


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path: Path) -> None:
    objects = parse_annotation(annotation(tmp_path, BARE.format(BOX)))
    assert objects.names == ("dog",)
    assert objects.boxes.tolist() == [[47, 239, 195, 371]]


def test_fractions_of_a_pixel_are_kept(tmp_path: Path) -> None:
    text = BARE.format(BOX.replace("48", "48.123456789").replace("371", "371.5"))
    objects = parse_annotation(annotation(tmp_path, text))
    assert objects.boxes.tolist() == [[47.123456789, 239, 195, 371.5]]


def test_fields_that_labelling_tools_omit_have_defaults(tmp_path: Path) -> None:
    objects = parse_annotation(annotation(tmp_path, BARE.format(BOX)))
    assert objects.poses == ("unspecified",)
    assert objects.truncated.tolist() == [False]
    assert objects.difficult.tolist() == [False]


def test_pose_truncated_and_difficult_are_read(tmp_path: Path) -> None:
    said = "<pose>Left</pose><truncated>1</truncated><difficult>1</difficult>"
    objects = parse_annotation(annotation(tmp_path, BARE.format(said + BOX)))
    assert objects.poses == ("left",)
    assert objects.truncated.tolist() == [True]
    assert objects.difficult.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "difficult"),
    [
        *((text, True) for text in ("1", " 1 ", "1.0", "True", "true", "YES", "2")),
        *((text, False) for text in ("0", "0.0", "False", "no", "", " ", "Unspecified", "None")),
    ],
)
def test_flags_of_any_tool_are_read(tmp_path: Path, text: str, difficult: bool) -> None:
    for tag in ("difficult", "truncated"):
        objects = parse_annotation(
            annotation(tmp_path, BARE.format(f"<{tag}>{text}</{tag}>" + BOX))
        )
        assert getattr(objects, tag).tolist() == [difficult]


def test_a_flag_that_is_neither_is_named(tmp_path: Path) -> None:
    text = BARE.format("<difficult>perhaps</difficult>" + BOX)
    with pytest.raises(UserError, match="<difficult> must be 0 or 1. Received: 'perhaps'"):
        parse_annotation(annotation(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        f"<annotations>{BARE}</annotations>",
        BARE.replace("annotation", "Annotation").replace("object", "Object"),
        BARE.replace("<annotation>", '<annotation xmlns="urn:voc">'),
        BARE.replace("<object>", "<objects><object>").replace("</object>", "</object></objects>"),
        BARE.replace("<object>", "<source><annotation>VOC2007</annotation></source><object>"),
        '<?xml version="1.0" encoding="GB2312"?>' + BARE,
    ],
)
def test_nested_and_other_spellings_are_read(tmp_path: Path, text: str) -> None:
    objects = parse_annotation(annotation(tmp_path, text.format(BOX)))
    assert (objects.names, objects.boxes.tolist()) == (("dog",), [[47, 239, 195, 371]])


def test_a_name_in_gb2312_is_read(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="gb2312"?>' + BARE.format(BOX).replace("dog", "山羊")
    (tmp_path / "a.xml").write_bytes(text.encode("gb2312"))
    assert parse_annotation(tmp_path / "a.xml").names == ("山羊",)


def test_a_file_holds_one_annotation(tmp_path: Path) -> None:
    one = BARE.format(BOX)
    with pytest.raises(UserError, match="must hold one <annotation>. Received: 2, in <all>"):
        parse_annotation(annotation(tmp_path, f"<all>{one}{one}</all>"))
    with pytest.raises(UserError, match="must hold one <annotation>. Received: 0, in <svg>"):
        parse_annotation(annotation(tmp_path, "<svg/>"))


def test_an_unknown_pose_is_unspecified(tmp_path: Path) -> None:
    objects = parse_annotation(annotation(tmp_path, BARE.format("<pose>asleep</pose>" + BOX)))
    assert objects.poses == ("unspecified",)


def test_parts_have_boxes_of_their_own_and_do_not_count(tmp_path: Path) -> None:
    part = BOX.replace("48", "60").join(["<part><name>head</name>", "</part>"])
    objects = parse_annotation(annotation(tmp_path, BARE.format(BOX + part)))
    assert objects.boxes.tolist() == [[47, 239, 195, 371]]


def test_an_image_may_hold_nothing(tmp_path: Path) -> None:
    objects = parse_annotation(annotation(tmp_path, "<annotation/>"))
    assert objects.names == ()
    assert objects.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not readable XML"),
        ("", "not readable XML"),
        (BARE.format(""), "four numbers"),
        (BARE.format(BOX.replace("48", "left")), "four numbers. Received: .'left'"),
        (BARE.format(BOX.replace("48", "nan")), "not finite"),
        (BARE.format(BOX.replace("48", "999")), "inverted"),
        (BARE.format(BOX).replace("<name>dog</name>", ""), "no name"),
    ],
)
def test_a_malformed_annotation_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"000001.xml: .*{message}"):
        parse_annotation(annotation(tmp_path, text))


@given(st.lists(st.tuples(*[st.integers(0, 3000)] * 4), max_size=4))
def test_written_integers_are_read_back(tmp_path_factory, corners) -> None:
    boxes = np.array(
        [[min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1] for a, b, c, d in corners], float
    ).reshape(-1, 4)
    text = write_annotation("1.jpg", 3001, 3001, ["cat"] * len(boxes), boxes)
    objects = parse_annotation(annotation(tmp_path_factory.mktemp("voc"), text))
    assert objects.boxes.tolist() == boxes.tolist()
    assert objects.names == ("cat",) * len(boxes)
