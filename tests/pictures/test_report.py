"""The page of a run: its content, its safety against markup in names, its look in a browser."""

import base64
import hashlib
import html
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import PIL.Image
import pytest
from helpers import PLAIN

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.options import DEFAULT_OPTIONS, BoxOptions
from kgradcam.boxes.overlap import box_iou
from kgradcam.errors import UserError
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.evaluation.heat_check import HeatCheck
from kgradcam.evaluation.results import Result
from kgradcam.evaluation.rows import Row
from kgradcam.export.labels import labels_of_run
from kgradcam.metrics.protocol import find_protocol
from kgradcam.metrics.shortcuts import FixedPlace
from kgradcam.pictures import report, report_cards, report_heat
from kgradcam.pictures.blending import heat_colors, overlay
from kgradcam.pictures.report import build_report
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run

VOC2010 = find_protocol("voc2010")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</script><script>alert(1)</script>&lt;b&gt;\u2028{{script}}"


class Page(HTMLParser):
    """The tags of a page, and the text of its parts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        name = attributes.get("id") or tag
        self.text[name] = self.text.get(name, "") + data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.text["data"])

    @property
    def cards(self) -> list[dict[str, Any]]:
        return self.data["cards"]


def boxes_at(page: Page, card: dict[str, Any], threshold: float) -> np.ndarray:
    """`[boxes, 6]`: what `boxesAt` of the script returns, with NaN for no IoU."""
    step = page.data["thresholds"].index(threshold)
    _, *shown = [change for change in card["changes"] if change[0] <= step][-1]
    return np.array([card["boxes"][i] for i in shown], np.float64).reshape(-1, 6)


def build(run: Run, **options: Any) -> Page:
    return Page(build_report(run, None, [0.3, 0.5], VOC2010, **options))


def test_the_gallery_is_the_run(run: Run) -> None:
    page = build(run)
    assert page.data["thresholds"][page.data["step"]] == 0.5
    assert len(page.cards) == 5
    (card,) = [c for c in page.cards if (c["file"], c["class"]) == ("b.jpg", "dog")]
    assert card["size"] == [30, 40]
    assert card["objects"] == [[0, 15, 10, 30]]
    found = run.detections([0.5])[0, 0.5]
    mine = (found.image_ids == 2) & (found.category_ids == 2)
    shown = boxes_at(page, card, 0.5)
    assert len(shown) == 2
    order = np.argsort(-found.scores[mine])
    np.testing.assert_array_equal(shown[:, :4], found.boxes[mine][order])
    np.testing.assert_allclose(shown[:, 4], found.scores[mine][order], atol=1e-4)
    np.testing.assert_array_equal(shown[:, 5] > 0.5, [False, True])  # the cat's box, the dog's
    # Brightness is the same for both squares, so the larger has the higher score: the cat's.
    assert card["score"] == shown[0, 4]
    assert card["iou"] == 0
    (cat,) = [c for c in page.cards if (c["file"], c["class"]) == ("b.jpg", "cat")]
    assert cat["iou"] > 0.8
    with decoded(page.data["photos"]["b.jpg"], "image/jpeg") as image:
        assert image.size == (30, 40)


def decoded(source: str, kind: str) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(source.removeprefix(f"data:{kind};base64,"))))


def test_a_heatmap_is_drawn_as_in_other_pictures() -> None:
    heatmap = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    with decoded(report_cards._encode_heatmap(heatmap), "image/png") as image:
        layer = np.asarray(image.convert("RGBA"), np.float64)
    photo = np.full((5, 7, 3), 100, np.uint8)
    opacity = layer[..., 3:] / 255
    blended = photo * (1 - opacity) + layer[..., :3] * opacity
    wanted = overlay(photo, (heatmap - heatmap.min()) / np.ptp(heatmap)).astype(float)
    np.testing.assert_allclose(blended, wanted, atol=5)  # of 255: half of a shade
    assert np.ptp(wanted) > 100
    with decoded(
        report_cards._encode_heatmap(np.ones((100, 300), np.float32)), "image/png"
    ) as image:
        assert image.size == (64, 21)
        assert image.convert("RGBA").getextrema()[3] == (0, 0)  # no contrast, no heat


@pytest.mark.parametrize(
    ("rules", "radius"), [*(("single-threshold", radius) for radius in (0, 1, 4, 7)), ("levels", 0)]
)
def test_boxes_at_every_step_are_those_of_find_boxes(
    run: Run, monkeypatch: pytest.MonkeyPatch, rules: str, radius: int
) -> None:
    """Random heatmaps: holes, corners that touch, regions at the border."""
    records = randomize(run, monkeypatch, rules, radius)
    page = build(run)
    assert len(page.data["thresholds"]) == 51
    checked = 0
    for card in page.cards:
        (record,) = [
            each
            for each in records
            if run.ground_truth.categories[each.category_id - 1] == card["class"]
            and run.ground_truth.images[each.image_id - 1].file_name == card["file"]
        ]
        easy = np.array(card["objects"])[~np.array(card["difficult"], bool)].reshape(-1, 4)
        for threshold in page.data["thresholds"]:
            if threshold in run.thresholds:
                continue  # from the run's files, which the random heatmaps did not make
            boxes, scores = find_boxes(
                record.heatmap, tuple(card["size"]), record.probability, threshold, run.options
            )
            order = np.argsort(-scores, kind="stable")
            shown = boxes_at(page, card, threshold)
            np.testing.assert_allclose(shown[:, :4], boxes[order], atol=0.5)
            np.testing.assert_allclose(shown[:, 4], scores[order], atol=1e-4)
            ious = box_iou(boxes[order], easy).max(axis=1) if len(easy) else np.nan
            np.testing.assert_allclose(shown[:, 5], ious, atol=1e-4)
            checked += len(boxes)
    assert checked > 200


def randomize(
    run: Run, monkeypatch: pytest.MonkeyPatch, rules: str, radius: int
) -> list[ClassHeatmap]:
    """Gives a run other box options, and random heatmaps in place of its own."""
    options = {"rules": rules, "smooth_radius": radius, "score": DEFAULT_OPTIONS[rules].score}
    for name, value in options.items():
        object.__setattr__(run.options, name, value)
    generator = np.random.default_rng(radius)
    records = [
        replace(record, heatmap=generator.normal(size=(6, 5)).astype(np.float32))
        for record in run.heatmaps()
    ]
    monkeypatch.setattr(Run, "heatmaps", lambda self: iter(records))
    return records


def test_the_worst_come_first_and_only_so_many(run: Run) -> None:
    every = build(run).cards
    order = [(2 if e["iou"] is None else e["iou"]) for e in every]
    worst = build(run, count=2).cards
    assert [e["file"] for e in worst] == [e["file"] for e in every[:2]]
    assert every[0]["iou"] == 0
    assert [e for e in order if e <= 1] == sorted(e for e in order if e <= 1)
    # c.jpg has a difficult cat only: nothing there can be missed.
    (difficult,) = [e for e in every if e["file"] == "c.jpg"]
    assert (difficult["iou"], difficult["difficult"]) == (None, [True])


def test_a_run_without_annotations_has_a_report(pets, tiny_model: Path, tmp_path: Path) -> None:
    options = {"classes": ("cat=0", "dog=2"), "model": str(tiny_model), "presence_threshold": 0.0}
    pictures = str(pets.root / "JPEGImages")
    made = detect(Configuration(**PLAIN, dataset=pictures, **options), tmp_path / "plain")
    text = build_report(made, None, [0.5], VOC2010)
    assert "Nothing is annotated, so there is no AP." in text
    doubts = [card["doubt"] for card in Page(text).data["cards"]]
    assert len(doubts) == 10
    assert doubts == sorted(doubts, reverse=True)


def test_the_doubt_of_cards_is_that_of_exported_labels(run: Run) -> None:
    cards = report_cards.find_cards(run, 0.5, 5)
    for labels in labels_of_run(run, threshold=0.5).images:
        doubts = [each.doubt for each in cards if each.image == labels.image]
        assert sum(doubts) == pytest.approx(labels.doubt)
    without = [replace(each, iou=None) for each in cards]
    doubts = [each.doubt for each in sorted(without, key=lambda each: each.sort_key)]
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[0] > doubts[-1]


def test_where_heat_lies_is_measured_on_some_of_many_heatmaps(run: Run) -> None:
    assert "Measured on" not in build_report(run, None, [0.3], VOC2010, count=0)
    with patch.object(report, "_MOST_CHECKED", 2):
        page = build_report(run, None, [0.3], VOC2010, count=0)
    assert "<p>Measured on 2 of 5 heatmaps.</p>" in page


def test_tables_and_configuration_are_those_of_the_run(run: Run) -> None:
    text = build_report(run, [0.3, 0.5], [0.5], VOC2010)
    evaluation = evaluate_run(run, [0.3, 0.5], [0.5], VOC2010)
    for line in [*evaluation.of_best_option().table()[1], *evaluation.table()[1]]:
        cells = "".join(f"<td>{cell}</td>" for cell in line[1:])
        assert f'<tr><th scope="row">{line[0]}</th>{cells}</tr>' in text
    assert "<dt>model layer</dt><dd>maps</dd>" in text
    for title in ("Precision over recall", "AP over the heat threshold"):
        assert text.count(f'alt="{title}, ') == 1
    assert "selected on the data that it is scored on" in text


def looks(found: HeatCheck) -> tuple[list[str], list[list[str]], list[dict[str, Any]], int]:
    """The sentences, the rows, the pictures, and the folded rows of the section."""
    text = report_heat.heat_section(found)
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    cells = [[name, *re.findall(r"<td>([^<]*)</td>", rest)] for name, rest in rows]
    images = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    folded = text.partition("<details>")[2].count('<th scope="row">')
    return re.findall(r"<li>(.*?)</li>", text), cells, images, folded


def check_of(**energy: float) -> HeatCheck:
    """A check of classes with a shortcut at the right of one of them, `bird`, in 9 heatmaps."""
    names = [*energy, "mean"]
    rows = tuple(
        Row(
            name,
            {"energy": energy.get(name, 0.5), "pointing": 1.0, "border": 0.2, "fixed": math.nan},
            {"heatmaps": 9},
        )
        for name in names
    )
    heat = np.zeros((32, 32))
    heat[12:20, 20:32] = 1 / 96
    places = {"bird": FixedPlace(0.5, (0.625, 0.375, 1.0, 0.75), 8)}
    result = Result("Where the heat lies", {"name": "check"}, rows)
    return HeatCheck(result, places, dict.fromkeys(energy, heat))


def test_where_the_model_looks() -> None:
    sentences, rows, images, folded = looks(check_of(cat=0.9, dog=0.4, owl=math.nan, bird=0.8))
    (sentence,) = sentences
    assert sentence.startswith("bird: 50% of the heat lies at one place outside the objects, at ")
    # A shortcut comes first, then the least heat in the boxes; unknown ones last, then the mean.
    assert rows == [
        ["bird", "9", "0.80", "1.00", "0.20", "-"],
        ["dog", "9", "0.40", "1.00", "0.20", "-"],
        ["cat", "9", "0.90", "1.00", "0.20", "-"],
        ["owl", "9", "-", "1.00", "0.20", "-"],
        ["mean", "", "9", "0.50", "1.00", "0.20", "-"],
    ]
    assert [image["alt"] for image in images] == [
        "mean heat of bird, with a frame at the right",
        *(f"mean heat of {name}" for name in ("dog", "cat", "owl")),
    ]
    with decoded(images[0]["src"], "image/png") as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int64)
    assert pixels.shape == (96, 96, 3)
    pink = (pixels == (255, 61, 190)).all(axis=-1)
    assert pink[36:72, 60:96].sum() == pink.sum() == 36**2 - 32**2  # a frame of 2 pixels
    cold, hot = heat_colors(np.array([0.0, 1.0]))
    np.testing.assert_allclose(pixels[48, 80], hot, atol=1)
    np.testing.assert_allclose(pixels[10, 10], cold, atol=1)
    assert folded == 0


def test_many_classes_are_folded_and_names_are_names() -> None:
    found = check_of(**{f"class {i}": i / 20 for i in range(20)})
    found = replace(found, places={})
    sentences, rows, images, folded = looks(found)
    assert sentences == ["No class has the 6 pictures that a search for shortcuts needs."]
    assert (len(rows), len(images), folded) == (21, 20, 8)
    assert [row[0] for row in rows] == [
        *(f"class {i}" for i in range(12)),
        "mean",
        *(f"class {i}" for i in range(12, 20)),
    ]
    place = FixedPlace(0.1, (0.0, 0.0, 0.375, 0.375), 2)
    found = replace(found, places={"class 1": place})
    assert looks(found)[0] == [
        "No shortcut was found in 1 of 20 classes. The other 19 have too few pictures."
    ]
    text = report_heat.heat_section(check_of(**{HOSTILE: 0.1}))
    assert HOSTILE not in text
    assert f'alt="mean heat of {html.escape(HOSTILE)}"' in text


def test_without_a_gallery_the_dataset_is_not_needed(run: Run, pets) -> None:
    shutil.rmtree(pets.root)
    assert build(run, count=0).cards == []
    with pytest.raises(UserError, match="is gone: there is no folder"):
        build(run)


def test_an_image_that_has_gone_is_named(run: Run, pets) -> None:
    (pets.root / "JPEGImages/e.jpg").unlink()
    with pytest.raises(UserError, match=r"has no readable image e.jpg"):
        build(run)


@pytest.fixture
def hostile(make_voc, tiny_model: Path, tmp_path: Path) -> Run:
    """A run whose every name is markup."""
    folder = make_voc("a<b>&\"'{{script}}")
    for name in ("<script>alert(1)<", "x' onload='alert(2)", "{{data}}", "</script><b>"):
        folder.add(name.replace("/", "\u2215"), [(HOSTILE, (4, 6, 20, 24))])
    (folder.root / "JPEGImages/broken<i>.jpg").touch()
    (folder.root / "Annotations/broken<i>.xml").write_text("<annotation/>")
    configuration = Configuration(
        dataset=str(folder.root),
        classes=(f"{HOSTILE}=2",),
        model=str(tiny_model),
        thresholds=(0.3, 0.5),
        boxes=BoxOptions("single-threshold", 0, "heat"),
        **PLAIN,
    )
    return detect(configuration, tmp_path / "run")


def test_names_are_names(hostile: Run) -> None:
    page = build(hostile)
    text = build_report(hostile, None, [0.3, 0.5], VOC2010)
    assert sum(tag == "script" for tag, _ in page.tags) == 2  # the data, and the program
    assert not {"i", "iframe", "object"} & {tag for tag, _ in page.tags}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    # The charts and the mean heat of the class.
    assert [set(attributes) for attributes in images] == [{"src", "alt"}] * 3
    assert {e["class"] for e in page.cards} == {HOSTILE}
    assert {e["file"] for e in page.cards} == {
        image.file_name for image in hostile.ground_truth.images
    }
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text
    assert "broken&lt;i&gt;.jpg" in text
    # Every attribute of every tag is one of the template's, which dataset names cannot become.
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_asks_nobody_for_anything(hostile: Run) -> None:
    text = build_report(hostile, None, [0.5], VOC2010)
    page = Page(text)
    for _, attributes in page.tags:
        assert not {"href", "action", "srcset", "data", "poster"} & set(attributes)
        assert attributes.get("src", "data:").startswith("data:")
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_images_controls_and_scrolling_regions_have_names(run: Run) -> None:
    page = Page(build_report(run, [0.3, 0.5], [0.5], VOC2010))
    labels = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "select" or attributes.get("type") == "range":
            assert attributes["id"] in labels
        if "scroll" in (attributes.get("class") or ""):  # scrolled by keyboard once focused
            assert attributes["tabindex"] == "0"
            assert attributes["role"] == "region"
            assert attributes["aria-label"]


def test_the_program_adds_text_and_no_markup() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\("
    assert not re.search(ways, report._read_part("report.js"))


@pytest.fixture
def browse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opens the page of a run in Chromium, lets a program run in it, and returns what it told."""
    if CHROMIUM is None:
        pytest.skip("needs a browser: no chromium on PATH")

    def open_page(run: Run, program: str, **options: Any) -> Any:
        part = report._read_part
        # Once every card is filled and its picture decoded, which takes what it takes.
        tell = """
            const result = (() => {PROGRAM})();
            const tell = (tries) => {
                // A headless browser may render no frame before its time ends: fill now.
                data.cards.forEach(fill);
                const made = [...document.querySelectorAll('#cards img')];
                const ready = made.length === 2 * data.cards.length && made.every(i => i.complete);
                if (!ready && tries) return setTimeout(tell, 50, tries - 1);
                document.body.textContent = '@@' + JSON.stringify(result()) + '@@';
            };
            setTimeout(tell, 50, 60);""".replace("PROGRAM", program)
        monkeypatch.setattr(
            report, "_read_part", lambda name: part(name) + (tell if name == "report.js" else "")
        )
        page, log = tmp_path / "page.html", tmp_path / "net.json"
        page.write_text(build_report(run, None, [0.5], VOC2010, **options), encoding="utf-8")
        monkeypatch.setattr(report, "_read_part", part)
        assert CHROMIUM is not None
        result = subprocess.run(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", "--disable-quic", f"--user-data-dir={tmp_path / 'profile'}"),
                *("--enable-logging=stderr", f"--log-net-log={log}", "--window-size=1200,4000"),
                *("--virtual-time-budget=5000", "--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "CONSOLE" not in result.stderr, result.stderr
        # The browser asks its makers for this and that; what a page asks has an origin.
        asked = [line for line in log.read_text().splitlines() if '"initiator":"' in line]
        assert not [line for line in asked if '"initiator":"not an origin"' not in line]
        return json.loads(html.unescape(result.stdout.split("@@")[1]))

    return open_page


def test_in_a_browser_the_cards_show_the_stored_boxes(run: Run, browse) -> None:
    told = browse(
        run,
        """return () => [...document.querySelectorAll('#cards li')].map(card => ({
            name: card.querySelector('.name').textContent,
            values: card.querySelector('.values').textContent,
            boxes: [...card.querySelectorAll('rect.box')].map(r =>
                ['x', 'y', 'width', 'height'].map(n => Number(r.getAttribute(n)))),
            loaded: [...card.querySelectorAll('img')].map(image => image.naturalWidth),
        }));""",
    )
    page = build(run)
    assert [card["name"] for card in told] == [entry["file"] for entry in page.cards]
    for card, entry in zip(told, page.cards, strict=True):
        drawn = np.array(card["boxes"])
        drawn[:, 2:] += drawn[:, :2]
        np.testing.assert_array_equal(drawn, boxes_at(page, entry, 0.5)[:, :4])
        assert card["loaded"] == [entry["size"][0], entry["size"][0] / 2]  # the photo, the heat
        iou = "-" if entry["iou"] is None else f"{entry['iou']:.2f}"
        assert card["values"].endswith(f"score {entry['score']:.2f}, IoU {iou}")


@pytest.mark.parametrize("rules", ["single-threshold", "levels"])
def test_in_a_browser_the_slider_shows_the_boxes_of_each_step(
    run: Run, browse, monkeypatch: pytest.MonkeyPatch, rules: str
) -> None:
    randomize(run, monkeypatch, rules, 4)
    told = browse(
        run,
        """return () => data.thresholds.map((_, i) => {
            slider.value = i;
            slider.dispatchEvent(new Event('input'));
            data.cards.forEach(fill);
            return {
                at: document.getElementById('at').textContent,
                spoken: slider.getAttribute('aria-valuetext'),
                boxes: [...document.querySelectorAll('#cards svg')].map(svg =>
                    [...svg.querySelectorAll('rect.box')].map(r =>
                        ['x', 'y', 'width', 'height'].map(n => Number(r.getAttribute(n))))),
            };
        });""",
    )
    page = build(run)
    thresholds = page.data["thresholds"]
    assert [float(each["at"]) for each in told] == thresholds
    assert [each["spoken"] for each in told] == [each["at"] for each in told]
    for threshold, each in zip(thresholds, told, strict=True):
        for card, boxes in zip(page.cards, each["boxes"], strict=True):
            drawn = np.array(boxes, np.float64).reshape(-1, 4)
            drawn[:, 2:] += drawn[:, :2]
            np.testing.assert_array_equal(drawn, boxes_at(page, card, threshold)[:, :4])


def test_in_a_browser_names_are_names(hostile: Run, browse) -> None:
    told = browse(
        hostile,
        """return () => ({
            names: [...document.querySelectorAll('.name')].map(each => each.textContent),
            scripts: document.scripts.length,
            title: document.title,
            options: [...document.getElementById('class').options].map(each => each.textContent),
            bold: document.querySelectorAll('main b, main i').length,
        });""",
    )
    assert set(told["names"]) == {image.file_name for image in hostile.ground_truth.images}
    assert told["scripts"] == 2
    assert told["options"] == ["all", HOSTILE]
    assert "a<b>&\"'{{script}}" in told["title"]
    assert told["bold"] == 1  # the name of the image that was skipped


def test_in_a_browser_order_and_class_are_chosen(run: Run, browse) -> None:
    told = browse(
        run,
        """const choose = (id, value) => {
            const select = document.getElementById(id);
            select.value = value;
            select.dispatchEvent(new Event('change'));
            return [...document.querySelectorAll('#cards .name')].map(each => each.textContent);
        };
        const shown = () => document.getElementById('shown').textContent;
        return () => [
            ...['name', 'confident', 'best', 'worst'].map(order => choose('order', order)),
            choose('order', 'doubtful'), choose('class', 'cat'), shown(),
            (slider.value = data.thresholds.indexOf(0.9), slider.dispatchEvent(new Event('input')),
                document.getElementById('at').textContent),
        ];""",
    )
    entries = build(run).cards
    assert told[0] == sorted(entry["file"] for entry in entries)
    scores = {(e["file"], e["class"]): e["score"] for e in entries}
    assert told[1] == [name for name, _ in sorted(scores, key=lambda key: -scores[key])]
    assert told[2][-1] == "c.jpg"  # no object counts there
    assert told[3] == [entry["file"] for entry in entries]
    doubts = [entry["doubt"] for entry in entries]
    assert told[4] == [entries[i]["file"] for i in sorted(range(5), key=lambda i: -doubts[i])]
    assert sorted(told[5]) == ["b.jpg", "c.jpg"]
    assert told[6:] == ["2 heatmaps", "0.9"]


def test_in_a_browser_cards_are_filtered(run: Run, browse) -> None:
    told = browse(
        run,
        """const set = (id, value) => {
            const input = document.getElementById(id);
            input.value = value;
            input.dispatchEvent(new Event('input'));
            return chosen.map(card => [card.file, card.class]);
        };
        return () => [
            set('file', 'B.JP'), set('file', ''), set('most', '0.5'), set('most', ''),
            (set('most', '1'), set('least', '0.5')),
        ];""",
    )
    cards = build(run).cards
    names = [[card["file"], card["class"]] for card in cards]
    assert told[0] == [name for name in names if name[0] == "b.jpg"] != []
    assert told[1] == told[3] == names
    assert told[2] == [
        name
        for name, card in zip(names, cards, strict=True)
        if card["iou"] is not None and card["iou"] <= 0.5
    ]
    assert 0 < len(told[2]) < len(names)
    kept = [name for name, card in zip(names, cards, strict=True) if card["score"] >= 0.5]
    assert told[4] == kept


def test_in_a_browser_a_card_is_enlarged_and_arrow_keys_show_its_neighbours(
    run: Run, browse
) -> None:
    told = browse(
        run,
        """const press = (key) => dialog.dispatchEvent(new KeyboardEvent('keydown', {key}));
        const seen = () => [
            dialog.open, dialog.querySelector('.caption').textContent.split(':')[0],
            dialog.querySelectorAll('svg .box').length,
        ];
        return () => {
            const told = [seen()];
            chosen[0].item.querySelector('button').click();
            told.push(seen());
            for (const key of ['ArrowRight', 'ArrowLeft', 'ArrowLeft']) {
                press(key);
                told.push(seen());
            }
            dialog.querySelector('form button:last-child').click();
            told.push(seen());
            return told;
        };""",
    )
    page = build(run)
    threshold = page.data["thresholds"][page.data["step"]]
    first, second = (
        [True, card["file"], len(boxes_at(page, card, threshold))] for card in page.cards[:2]
    )
    assert told == [[False, "", 0], first, second, first, first, [False, *first[1:]]]


def test_in_a_browser_a_printed_page_has_all_cards(run: Run, browse) -> None:
    told = browse(
        run,
        """const empty = () => {
            for (const card of data.cards) {
                card.item.querySelector('.view').replaceChildren();
                delete card.svg;
                delete card.drawnAt;
            }
        };
        const count = () => document.querySelectorAll('#cards .photo').length;
        return () => {
            empty();
            const before = count();
            window.dispatchEvent(new Event('beforeprint'));
            return [before, count()];
        };""",
    )
    assert told == [0, len(build(run).cards)]
