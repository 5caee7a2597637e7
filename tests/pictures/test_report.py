"""The page of a run: what it says, that data are text to it, and what a browser makes of it."""

import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from helpers import PLAIN

from kgradcam.boxes.find import find_boxes
from kgradcam.boxes.options import DEFAULT_OPTIONS, BoxOptions
from kgradcam.errors import UserError
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.metrics.average_precision import find_protocol
from kgradcam.pictures import report
from kgradcam.pictures.report import build_report
from kgradcam.runs.detection import Configuration, detect
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


def build(run: Run, **options: Any) -> Page:
    return Page(build_report(run, None, [0.3, 0.5], VOC2010, **options))


def test_the_gallery_is_the_run(run: Run) -> None:
    data = build(run).data
    assert (data["threshold"], data["radius"], data["score"]) == (0.5, 0, "heat")
    assert len(data["entries"]) == 5
    (entry,) = [e for e in data["entries"] if (e["file"], e["class"]) == ("b.jpg", "dog")]
    assert entry["size"] == [30, 40]
    assert entry["objects"] == [[0, 15, 10, 30]]
    found = run.detections([0.5])[0, 0.5]
    mine = (found.image_ids == 2) & (found.category_ids == 2)
    stored = np.array(entry["boxes"][0]["boxes"])
    np.testing.assert_array_equal(stored[:, :4], found.boxes[mine])
    np.testing.assert_allclose(stored[:, 4], found.scores[mine], atol=1e-4)
    # Brightness is the same for both squares, so the larger has the higher score: the cat's.
    assert entry["score"] == stored[:, 4].max()
    assert entry["iou"] == 0
    (cat,) = [e for e in data["entries"] if (e["file"], e["class"]) == ("b.jpg", "cat")]
    assert cat["iou"] > 0.8
    picture = base64.b64decode(entry["picture"].removeprefix("data:image/jpeg;base64,"))
    with PIL.Image.open(io.BytesIO(picture)) as image:
        assert image.size == (30, 40)


def test_a_map_comes_back_in_16_bits() -> None:
    heatmap = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    told = report._encoded_map(heatmap)
    values = np.frombuffer(base64.b64decode(told["values"]), "<u2").reshape(5, 7) / 65_535
    np.testing.assert_allclose(values, (heatmap - heatmap.min()) / np.ptp(heatmap), atol=1e-5)
    assert (told["width"], told["height"]) == (7, 5)
    large = report._encoded_map(np.ones((100, 300), np.float32))
    assert (large["width"], large["height"]) == (64, 21)


def test_the_worst_come_first_and_only_so_many(run: Run) -> None:
    every = build(run).data["entries"]
    order = [(2 if e["iou"] is None else e["iou"]) for e in every]
    worst = build(run, count=2).data["entries"]
    assert [e["file"] for e in worst] == [e["file"] for e in every[:2]]
    assert every[0]["iou"] == 0
    assert [e for e in order if e <= 1] == sorted(e for e in order if e <= 1)
    # c.jpg has a difficult cat only: nothing there can be missed.
    (difficult,) = [e for e in every if e["file"] == "c.jpg"]
    assert (difficult["iou"], difficult["difficult"]) == (None, [True])


def test_tables_and_configuration_are_those_of_the_run(run: Run) -> None:
    text = build_report(run, [0.3, 0.5], [0.5], VOC2010)
    evaluation = evaluate_run(run, [0.3, 0.5], [0.5], VOC2010)
    for line in evaluation.table()[1]:
        cells = "".join(f"<td>{cell}</td>" for cell in line[1:])
        assert f'<tr><th scope="row">{line[0]}</th>{cells}</tr>' in text
    assert "<dt>model layer</dt><dd>maps</dd>" in text
    assert "AP over the heat threshold" in text
    assert text.count("<polyline") == 3  # AP, and the curves of two classes
    assert "selected on the data that it is scored on" in text


def test_without_a_gallery_the_dataset_is_not_needed(run: Run, pets) -> None:
    shutil.rmtree(pets.root)
    assert build(run, count=0).data["entries"] == []
    with pytest.raises(UserError, match="neither a folder in VOC layout"):
        build(run)


def test_an_image_that_has_gone_is_named(run: Run, pets) -> None:
    (pets.root / "JPEGImages/e.jpg").unlink()
    with pytest.raises(UserError, match=r"does not hold a readable e.jpg any more"):
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
    assert not {"img", "b", "i", "iframe", "object"} & {tag for tag, _ in page.tags if tag != "b"}
    assert {e["class"] for e in page.data["entries"]} == {HOSTILE}
    assert {e["file"] for e in page.data["entries"]} == {
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
        assert not {"src", "href", "action", "srcset", "data", "poster"} & set(attributes)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_program_adds_text_and_no_markup() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\("
    assert not re.search(ways, report._part("report.js"))


@pytest.fixture
def browse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opens the page of a run in Chromium, lets a program run in it, and returns what it told."""
    if CHROMIUM is None:
        pytest.skip("needs a browser: no chromium on PATH")

    def open_page(run: Run, program: str, **options: Any) -> Any:
        part = report._part
        # Once every card is filled and its picture decoded, which takes what it takes.
        tell = """
            const result = (() => {PROGRAM})();
            const tell = (tries) => {
                const made = [...document.querySelectorAll('#cards img')];
                const ready = made.length === data.entries.length && made.every(i => i.complete);
                if (!ready && tries) return setTimeout(tell, 50, tries - 1);
                document.body.textContent = '@@' + JSON.stringify(result()) + '@@';
            };
            setTimeout(tell, 50, 60);""".replace("PROGRAM", program)
        monkeypatch.setattr(
            report, "_part", lambda name: part(name) + (tell if name == "report.js" else "")
        )
        page, log = tmp_path / "page.html", tmp_path / "net.json"
        page.write_text(build_report(run, None, [0.5], VOC2010, **options), encoding="utf-8")
        monkeypatch.setattr(report, "_part", part)
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
            loaded: card.querySelector('img').naturalWidth,
        }));""",
    )
    entries = build(run).data["entries"]
    assert [card["name"] for card in told] == [entry["file"] for entry in entries]
    for card, entry in zip(told, entries, strict=True):
        stored = np.array(entry["boxes"][0]["boxes"])[:, :4]
        drawn = np.array(card["boxes"])
        drawn[:, 2:] += drawn[:, :2]
        np.testing.assert_array_equal(drawn, stored)
        assert card["loaded"] == entry["size"][0]
        iou = "-" if entry["iou"] is None else f"{entry['iou']:.2f}"
        assert card["values"].endswith(f"score {entry['score']:.2f}, IoU {iou}")


@pytest.mark.parametrize(
    ("rules", "radius"), [*(("single-threshold", radius) for radius in (0, 1, 4, 7)), ("levels", 0)]
)
def test_in_a_browser_other_thresholds_are_drawn_as_we_draw_them(
    run: Run, browse, monkeypatch: pytest.MonkeyPatch, rules: str, radius: int
) -> None:
    """Random maps: holes, corners that touch, regions at the border."""
    score = DEFAULT_OPTIONS[rules].score
    options = {"rules": rules, "smooth_radius": radius, "score": score}
    for name, value in options.items():
        object.__setattr__(run.options, name, value)
    generator = np.random.default_rng(radius)
    records = [
        type(record)(
            record.image_id,
            record.category_id,
            generator.normal(size=(6, 5)).astype(np.float32),
            record.score,
            record.probability,
        )
        for record in run.heatmaps()
    ]
    monkeypatch.setattr(Run, "heatmaps", lambda self: iter(records))
    thresholds = [0.05, 0.2, 0.41, 0.63, 0.8, 0.97, 1.0]
    told = browse(
        run,
        f"""return () => data.entries.map(entry =>
            {thresholds}.map(threshold => drawBoxes(entry, threshold)));""",
    )
    checked = 0
    for entry, by_threshold in zip(build(run).data["entries"], told, strict=True):
        (record,) = [
            each
            for each in records
            if run.ground_truth.categories[each.category_id - 1] == entry["class"]
            and run.ground_truth.images[each.image_id - 1].file_name == entry["file"]
        ]
        for threshold, found in zip(thresholds, by_threshold, strict=True):
            boxes, scores = find_boxes(
                record.heatmap,
                tuple(entry["size"]),
                record.probability,
                threshold,
                BoxOptions(rules, radius, score),
            )
            drawn = np.array(found).reshape(-1, 5)
            assert len(drawn) == len(boxes)
            np.testing.assert_allclose(drawn[:, :4], boxes, atol=1e-9)
            np.testing.assert_allclose(drawn[:, 4], scores, atol=1e-4)
            checked += len(boxes)
    assert checked > 40


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
            choose('class', 'cat'), shown(),
            (slider.value = 0.9, slider.dispatchEvent(new Event('input')), at.textContent),
        ];""",
    )
    entries = build(run).data["entries"]
    assert told[0] == sorted(entry["file"] for entry in entries)
    scores = {(e["file"], e["class"]): e["score"] for e in entries}
    assert told[1] == [name for name, _ in sorted(scores, key=lambda key: -scores[key])]
    assert told[2][-1] == "c.jpg"  # no object counts there
    assert told[3] == [entry["file"] for entry in entries]
    assert sorted(told[4]) == ["b.jpg", "c.jpg"]
    assert told[5:] == ["2 heatmaps", "0.9"]
