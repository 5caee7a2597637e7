"""`explain`: boxes, overlays alone, colours, empty heatmaps, and pictures by their address."""

import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

from kgradcam.boxes import find_boxes
from kgradcam.cli import downloads
from kgradcam.pictures.blending import overlay
from kgradcam.pictures.drawing import PREDICTION_COLOR, ExplanationRow, draw_overlays
from kgradcam.pictures.figures import encode


@pytest.fixture
def bright(tmp_path: Path, monkeypatch) -> Path:
    """A grey picture of 451 x 300 pixels with a bright square."""
    monkeypatch.chdir(tmp_path)
    picture = np.full((300, 451, 3), 40, np.uint8)
    picture[100:200, 150:300] = 220
    PIL.Image.fromarray(picture).save(tmp_path / "bright.png")
    return tmp_path / "bright.png"


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


def test_an_overlay_alone_has_the_pixels_of_the_image() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (30, 451, 3), dtype=np.uint8)
    heat = generator.random((2, 30, 451), np.float32)
    row = ExplanationRow(image, "a.png", heat, ["cat", "dog"])
    drawn = decoded(encode(draw_overlays(row, "inferno"), ".png"))
    expected = np.hstack([overlay(image, each, colormap="inferno") for each in heat])
    assert drawn.shape == expected.shape
    np.testing.assert_allclose(drawn, expected, atol=1)


def test_a_box_of_low_score_is_paler() -> None:
    image = np.full((100, 200, 3), 0, np.uint8)
    boxes, scores = np.array([[10.0, 10, 90, 90], [110, 10, 190, 90]]), np.array([0.9, 0.45])
    row = ExplanationRow(image, "", np.zeros((1, 100, 200), np.float32), [""], [boxes], [scores])
    drawn = decoded(encode(draw_overlays(row), ".png")).astype(int)
    strong, pale = drawn[50, 8:13].max(axis=0), drawn[50, 108:113].max(axis=0)
    wanted = np.array([int(PREDICTION_COLOR[i : i + 2], 16) for i in (1, 3, 5)])
    np.testing.assert_allclose(strong, wanted, atol=6)
    np.testing.assert_allclose(pale, wanted / 2, atol=6)


def test_boxes_in_json_and_in_the_picture(kgradcam, bright: Path, tiny_model: Path) -> None:
    options = ("explain", bright, "--model", tiny_model, "--class", "0", "--image-size", "native")
    result = kgradcam(*options, "--out", "plain.png", "--json")
    assert result.code == 0, result.err
    (found,) = json.loads(result.out)["findings"]
    assert found["class_index"] == [0]
    assert found["picture_size"] == found["size"] == [451, 300]
    assert found["layer"] == "maps"
    assert not found["is_empty"]
    best = found["boxes"][0]
    # The heat of a cell is the brightness of its 2 x 2 pixels.
    heat = np.full((150, 226), 40, np.float32)
    heat[50:100, 75:150] = 220
    heat[:, -1] = 20  # half of these cells is padding
    expected, _ = find_boxes(heat, (451, 300), found["probability"])
    np.testing.assert_allclose(best["box"], expected[0], atol=0.01)
    assert 0 < best["score"] <= 1
    assert kgradcam(*options, "--out", "boxes.png", "--draw-boxes").code == 0
    shown = [np.asarray(PIL.Image.open(name).convert("RGB")) for name in ("plain.png", "boxes.png")]
    assert shown[0].shape == shown[1].shape
    assert (shown[0] != shown[1]).any()


def test_overlay_only_writes_a_file_for_each_image(
    kgradcam, bright: Path, tiny_model: Path, tmp_path: Path
) -> None:
    PIL.Image.new("RGB", (64, 48), "white").save(tmp_path / "white.jpg")
    options = ("--model", tiny_model, "--overlay-only", "--class", "0")
    result = kgradcam("explain", bright, "white.jpg", *options, "--out", "both")
    assert (result.code, result.out.split()) == (0, ["both/bright.png", "both/white.png"])
    assert PIL.Image.open("both/bright.png").size == (451, 300)
    result = kgradcam("explain", bright, "white.jpg", *options, "--out", "both.png")
    assert (result.code, result.out) == (2, "")
    assert "--overlay-only writes a file for each image. Give --out a folder" in result.err
    result = kgradcam("explain", bright, *options, "--colormap", "virdis")
    assert result.code == 1
    assert "Did you mean 'viridis'" in result.err


def test_a_heatmap_without_heat_is_named(kgradcam, bright: Path, tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(2, 3, name="maps", kernel_initializer="zeros"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, "softmax"),
        ]
    )
    model.save(tmp_path / "dead.keras")
    result = kgradcam("explain", bright, "--model", "dead.keras", "--json")
    assert result.code == 0, result.err
    (found,) = json.loads(result.out)["findings"]
    assert (found["is_empty"], found["boxes"]) == (True, [])
    result = kgradcam("explain", bright, "--model", "dead.keras", "--force")
    assert "The heatmap of class 0 by gradcam on bright.png has the same value every" in result.err


def test_an_array_file_is_refused_in_one_line(kgradcam, tiny_model: Path, tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 3), np.uint8))
    result = kgradcam("explain", tmp_path / "a.npy", "--model", tiny_model)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "It holds an array. Save it as PNG, or use kgradcam.explain in Python" in result.err


class _Pictures(http.server.BaseHTTPRequestHandler):
    content = b""

    def do_GET(self) -> None:
        if self.path.startswith("/short"):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(self.content)
        elif self.path.startswith("/missing"):
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address(bright: Path, monkeypatch) -> Iterator[str]:
    """The address of a server on this machine that answers with the picture."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_Pictures, "content", bright.read_bytes())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_pictures_by_their_address(kgradcam, address: str, tiny_model: Path) -> None:
    images = [f"{address}/a%20cat.jpg?size=2", f"{address}/missing.jpg", f"{address}/short.jpg"]
    result = kgradcam("explain", *images, "--model", tiny_model, "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["pictures"][0] == "explained/a_cat.png"
    assert [each["image"] for each in content["findings"]] == images[:1]
    assert content["left_out"] == {
        images[1]: f"{images[1]} cannot be downloaded: the server answers 404 Not Found. "
        "Save it, and give the file.",
        images[2]: content["left_out"][images[2]],
    }
    assert "IncompleteRead" in content["left_out"][images[2]]


def test_downloads_are_bounded(kgradcam, address: str, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "LIMIT", 2**10)
    monkeypatch.setattr(_Pictures, "content", bytes(2**12))
    result = kgradcam("explain", f"{address}/a.jpg", "--model", tiny_model)
    assert (result.code, result.err) == (1, f"kgradcam: {address}/a.jpg has more than 0 MiB.\n")
    monkeypatch.setattr(downloads, "LIMIT", 2**20)
    monkeypatch.setattr(downloads, "SECONDS", 0.5)
    monkeypatch.setattr(downloads.time, "monotonic", iter(range(100)).__next__)
    assert "it takes too long" in kgradcam("explain", f"{address}/a.jpg", "--model", tiny_model).err


def test_without_a_network_it_is_one_line(kgradcam, tiny_model: Path, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for address in ("http://127.0.0.1:9/cat.jpg", "http://[/cat.jpg"):
        result = kgradcam("explain", address, "--model", tiny_model)
        assert (result.code, result.err.count("\n")) == (1, 1), result.err
        assert f"kgradcam: {address} cannot be downloaded: " in result.err
