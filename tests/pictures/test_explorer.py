"""The values behind the page of `kgradcam explore`, by hand; `test_explorer_page` has the page."""

import importlib.util
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest

from kgradcam.boxes.find import find_boxes
from kgradcam.data.sources import open_dataset
from kgradcam.errors import UserError
from kgradcam.heatmaps.gradcam import GradCAM
from kgradcam.models.classifier import Classifier
from kgradcam.pictures.blending import overlay
from kgradcam.pictures.explorer import Choice, Explorer, draw_boxes
from kgradcam.pictures.explorer_page import describe, is_loopback, listen, show, write_files

KERNEL = np.eye(3, 8, dtype=np.float32)
KERNEL[0, 7] = -1  # the last class is against red
PINK = (255, 61, 190)


def colours(units: int = 8, activation: str | None = "softmax", **options: Any) -> Classifier:
    """Sees the mean red, green and blue of 4 x 4 pixels, as its first three classes."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Conv2D(3, 1, use_bias=False, name="colours"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(units, activation, use_bias=False),
        ]
    )
    model.get_layer("colours").set_weights([np.eye(3, dtype=np.float32)[None, None]])
    model.layers[-1].set_weights([KERNEL[:, :units]])
    return Classifier("colours", model, lambda images: images / 255, None, (4, 4), **options)


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(colours())


@pytest.fixture
def half_red(tmp_path: Path) -> Path:
    """Red on the left, blue on the right: 8 x 4 pixels."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4, 0], pixels[:, 4:, 2] = 255, 255
    path = tmp_path / "half red.png"
    PIL.Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the passes through a model."""
    count: Counter[str] = Counter()
    calls = {name: getattr(GradCAM, name) for name in ("_explain", "_predict")}

    def counted(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            count[name] += 1
            return calls[name](*arguments)

        return call

    for name in calls:
        monkeypatch.setattr(GradCAM, name, counted(name))
    return count


def test_a_view_by_hand(explorer: Explorer, half_red: Path) -> None:
    view = explorer.view(half_red, Choice(0))
    # The logits are the mean colours, 1/2 for red and blue and -1/2 for the last class.
    logits = np.array([0.5, 0, 0.5, 0, 0, 0, 0, -0.5])
    wanted = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(view.photograph.probabilities, wanted, rtol=1e-5)
    assert view.photograph.top == (0, 2, 1, 3, 4)
    assert view.label == f"class 0 {wanted[0]:.1%}"
    # The resized picture is red in its left half, so is the heat: red / 16.
    seen = view.photograph.seen[0].astype(np.float64)
    heat = (seen[..., 0] / 255 / 16).astype(np.float32)
    boxes, scores = find_boxes(heat, (8, 4), wanted[0], 0.35)
    np.testing.assert_allclose(view.boxes, boxes, atol=1e-4)
    np.testing.assert_allclose(view.scores, scores, atol=1e-5)
    assert len(boxes) == 1
    heat_only = explorer.view(half_red, Choice(0, threshold=1)).overlay
    clipped = np.minimum(heat, np.quantile(heat, 0.99))  # as for any map of the input's size
    stretched = (clipped - heat.min()) / np.ptp(clipped)
    np.testing.assert_allclose(
        heat_only.astype(int), overlay(PIL.Image.open(half_red), stretched), atol=1
    )
    assert view.facts == {
        "image": "half red.png",
        "width": 8,
        "height": 4,
        "model": "colours",
        "class": "class 0",
        "class_index": 0,
        "probability": pytest.approx(wanted[0], rel=1e-5),
        "score": pytest.approx(0.5, rel=1e-5),
        "layer": "colours",
        "method": "gradcam",
        "threshold": 0.35,
    }


def test_the_top_class_is_the_default(explorer: Explorer, half_red: Path) -> None:
    assert explorer.view(half_red, Choice()).target == 0
    assert explorer.layers == {"colours": (4, 4, 3)}


def test_a_pass_is_used_again(explorer: Explorer, half_red: Path, passes: Counter[str]) -> None:
    """The first view costs a pass for the probabilities and one for the top classes."""
    before = explorer.view(half_red, Choice())
    assert passes == {"_predict": 1, "_explain": 1}
    after = explorer.view(half_red, Choice(threshold=1, opacity=0))
    assert (len(before.boxes), len(after.boxes)) == (1, 0)
    np.testing.assert_array_equal(after.overlay, np.asarray(PIL.Image.open(half_red)))
    for target in (1, 2, 4):
        explorer.view(half_red, Choice(target))
    assert passes == {"_predict": 1, "_explain": 1}
    explorer.view(half_red, Choice(7))  # no top class
    explorer.view(half_red, Choice(7, threshold=0.1))
    assert passes == {"_predict": 1, "_explain": 2}
    explorer.view(half_red, Choice(2, method="scorecam"))  # each class costs passes of its own
    explorer.view(half_red, Choice(0, method="scorecam"))
    explorer.view(half_red, Choice(2, method="scorecam"))
    assert passes == {"_predict": 1, "_explain": 4}


def test_explainers_are_kept_by_layer_and_method(explorer: Explorer, half_red: Path) -> None:
    for method in ("hirescam", "layercam", "hirescam", "hirescam"):
        explorer.view(half_red, Choice(1, method=method))
    made = [explorer._explainer("colours", method) for method in ("hirescam", "layercam")]
    assert [each.trace_count for each in made] == [1, 1]


def test_boxes_of_a_large_picture_are_in_its_own_pixels(explorer: Explorer, tmp_path: Path) -> None:
    pixels = np.zeros((1000, 2048, 3), np.uint8)
    pixels[:, :1024, 0] = 255
    PIL.Image.fromarray(pixels).save(tmp_path / "large.png")
    view = explorer.view(tmp_path / "large.png", Choice(0))
    assert view.overlay.shape == (500, 1024, 3)
    assert (view.facts["width"], view.facts["height"]) == (2048, 1000)
    ((left, top, right, bottom),) = view.boxes
    assert (left, top, bottom) == (0, 0, 1000)
    assert 1024 < right < 1500
    column = round(right / 2) - 1
    assert tuple(view.overlay[250, column]) == PINK


def test_boxes_are_drawn_on_their_outermost_pixels() -> None:
    grey = np.full((60, 80, 3), 100, np.uint8)
    drawn = draw_boxes(grey, np.array([[10.0, 20.0, 70.0, 50.0]]), np.array([0.5]))
    for y, x in ((20, 40), (49, 60), (35, 10), (35, 69)):
        assert tuple(drawn[y, x]) == PINK, (y, x)
    for y, x in ((19, 40), (50, 60), (35, 9), (35, 70), (45, 60)):
        assert tuple(drawn[y, x]) == (100, 100, 100), (y, x)
    assert (grey == 100).all()


def test_the_classes_of_one_unit_and_the_value_of_a_regression(half_red: Path) -> None:
    sides = Explorer(colours(1, "sigmoid"))
    assert [name for name, _ in sides.targets] == ["positive", "negative"]
    view = sides.view(half_red, Choice(1))
    assert view.label == f"negative {1 - 1 / (1 + np.exp(-0.5)):.1%}"
    value = Explorer(colours(1, None))
    view = value.view(half_red, Choice())
    assert view.label == "value 0.5"
    assert json.loads(view.to_json())["probability"] is None


def test_what_is_no_picture_is_a_message(explorer: Explorer, tmp_path: Path) -> None:
    path = tmp_path / "<b>no picture.jpg"
    path.write_text("text")
    shown = show(explorer, path, Choice())
    assert shown.view is None
    assert 'role="alert"' in shown.message
    assert "&lt;b&gt;no picture.jpg is not a readable image: unknown format." in shown.message
    assert 'role="status"' in show(explorer, None, Choice()).message
    cam = show(explorer, tmp_path / "gone.png", Choice(method="cam")).message
    assert "No image" in cam


def test_a_description_escapes_names_and_lists_boxes(explorer: Explorer, tmp_path: Path) -> None:
    path = tmp_path / "<i>.png"
    PIL.Image.new("RGB", (40, 20), "red").save(path)
    view = explorer.view(path, Choice(0))
    assert len(view.boxes) == 0  # even heat has no box
    text = describe(view)
    assert "0 boxes in &lt;i&gt;.png, 40 × 20 pixels." in text
    assert "<table>" not in text


def test_files_hold_the_view(explorer: Explorer, half_red: Path, tmp_path: Path) -> None:
    view = explorer.view(half_red, Choice(0))
    assert describe(view).count("<td>") == 5
    assert "1 box in half red.png" in describe(view)
    overlay_file, boxes_file = write_files(view, tmp_path)
    assert overlay_file.name == "half_red-class_0-gradcam.png"
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(overlay_file)), view.overlay)
    content = json.loads(boxes_file.read_text("utf-8"))
    np.testing.assert_allclose(
        [each["xyxy"] for each in content.pop("boxes")], view.boxes, atol=0.01
    )
    assert content == view.facts


def test_an_image_of_a_dataset_is_that_file(tmp_path: Path, half_red: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    half_red.rename(folder / "a.png")
    PIL.Image.new("RGB", (8, 4), "lime").save(folder / "b.png")
    explorer = Explorer(colours(), open_dataset(str(folder), layout="images"))
    assert explorer.view(1, Choice()).target == 1  # green
    view = explorer.view(0, Choice())
    assert view.photograph.name == "a.png"
    np.testing.assert_array_equal(view.overlay, explorer.view(folder / "a.png", Choice()).overlay)
    (folder / "b.png").unlink()
    explorer.photograph.cache_clear()
    assert "No image" in show(explorer, 1, Choice()).message


def test_only_loopback_is_this_machine() -> None:
    hosts = ("127.0.0.1", "127.0.0.9", "::1", "localhost", "0.0.0.0", "::", "192.168.0.2", "a.org")
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 4


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port}: .*--port 0"):
            listen("127.0.0.1", port)


def test_without_gradio_a_line_names_the_extra(kgradcam, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name)
    )
    result = kgradcam("explore", "--model", "none.keras")
    assert (result.code, result.out) == (1, "")
    assert result.err == 'kgradcam: explore needs Gradio: pip install "kgradcam[explore]"\n'
