"""The page of `kgradcam explore` in a headless browser, from a server in a process of its own."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest
from browser import CHROMIUM, Browser

import kgradcam

pytest.importorskip(
    "gradio", reason="needs Gradio: pip install 'kgradcam[explore]'", exc_type=ImportError
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: no chromium on PATH"),
]
READY = "document.querySelector('#facts [role=status]')"
MESSAGE = "document.querySelector('#facts').innerText"
IMAGE = "document.querySelector('#result img')"


class Server:
    """A server, and the number of connections that it made through a proxy."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.proxied = 0
        self._proxy = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._count, daemon=True).start()
        proxy = f"http://127.0.0.1:{self._proxy.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kgradcam", "explore", "--model", model, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | dict.fromkeys((*names, *map(str.lower, names)), proxy)
            | {"TMPDIR": folder},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def stop(self) -> tuple[int, str, str]:
        self._process.send_signal(signal.SIGINT)
        out, err = self._process.communicate(timeout=30)
        self._proxy.close()
        return self._process.returncode, out, err

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._proxy.accept()
            except OSError:
                return
            self.proxied += 1
            connection.close()


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    server = Server(tiny_model, folder)
    folders = [each.name[:17] for each in folder.iterdir()]
    yield server
    code, out, err = server.stop()
    assert folders == ["kgradcam-explore-"]
    assert (code, out) == (130, "")
    assert err.splitlines() == [
        "Ctrl-C ends the page.",
        "kgradcam: interrupted; no partial file is left behind.",
    ]
    assert list(folder.iterdir()) == []
    assert server.proxied == 0


@pytest.fixture
def page(server: Server, tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    try:
        browser.resize(1280, 900)
        browser.send("Page.navigate", url=server.url)
        browser.wait(READY)
        browser.wait("document.querySelector('input[type=file]')")
        yield browser
    finally:
        browser.close()
    elsewhere = ("data:", "blob:", "about:", f"{server.url}/")
    assert [each for each in browser.requested if not each.startswith(elsewhere)] == []
    assert browser.complaints == []


def picture(path: Path, box: tuple[int, int, int, int]) -> Path:
    """Grey, with a bright rectangle."""
    pixels = np.full((90, 120, 3), 40, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 220
    PIL.Image.fromarray(pixels).save(path)
    return path


def show(page: Browser, *paths: Path) -> None:
    page.upload("input[type=file]", *paths)
    page.wait(f"{MESSAGE}.includes('{paths[0].name}') && {IMAGE} && {IMAGE}.naturalWidth")


def download(page: Browser, label: str, file: Path) -> bytes:
    """Presses a button and returns the content of the file that the browser stores."""
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(file.parent))
    button = f"[...document.querySelectorAll('button')].find(b => b.innerText.includes('{label}'))"
    page.evaluate("new Promise(done => setTimeout(done, 500))")  # the buttons change last
    page.evaluate(f"{button}.click()")
    end = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < end, list(file.parent.iterdir())
        time.sleep(0.05)
    return file.read_bytes()


def test_a_picture_is_explained_and_downloaded(
    page: Browser, tiny_model: Path, tmp_path: Path
) -> None:
    paths = [
        picture(tmp_path / "a.png", (20, 30, 60, 70)),
        picture(tmp_path / "b.png", (70, 5, 110, 50)),
    ]
    show(page, *paths)
    e = kgradcam.explain(
        paths[0], keras.models.load_model(tiny_model), 2, preprocess="none", size=(90, 120)
    )
    boxes, scores = e.boxes(0)
    assert "2 boxes" not in page.evaluate(MESSAGE)
    assert page.evaluate(
        f"{MESSAGE}.startsWith('class 2 {e.probabilities[0, 0]:.1%}: 1 box in a.png')"
    )
    facts = json.loads(download(page, "JSON", tmp_path / "a-class_2-gradcam.json"))
    np.testing.assert_allclose([each["xyxy"] for each in facts["boxes"]], boxes, atol=0.01)
    np.testing.assert_allclose([each["score"] for each in facts["boxes"]], scores, atol=1e-3)
    overlay = PIL.Image.open(io.BytesIO(download(page, "PNG", tmp_path / "a-class_2-gradcam.png")))
    assert (overlay.format, overlay.size) == ("PNG", (120, 90))
    assert page.evaluate(f"[{IMAGE}.naturalWidth, {IMAGE}.naturalHeight]") == [120, 90]
    assert page.evaluate(f"{IMAGE}.alt").startswith("Heat of class 2")


def test_each_control_is_reached_and_moved_by_keys(page: Browser, tmp_path: Path) -> None:
    show(page, picture(tmp_path / "a.png", (20, 30, 60, 70)))
    active = "document.activeElement"
    name = f"{active}.getAttribute('aria-label') || {active}.innerText || {active}.type"
    wanted = {
        "Picture",
        "Any class",
        "Layer",
        "Method",
        "radio",
        "range slider for Heat threshold of boxes",
        "range slider for Opacity of heat",
        "Overlay (PNG)",
        "Boxes (JSON)",
    }
    reached = set()
    for _ in range(40):
        page.press("Tab")
        reached.add(page.evaluate(name).strip())
    assert wanted <= reached, wanted - reached
    # An arrow moves the threshold, and the boxes follow.
    page.evaluate("document.querySelector('input[type=range]').focus()")
    before = page.evaluate(f"{IMAGE}.src")
    page.press("ArrowRight")
    page.wait(f"{IMAGE}.src !== '{before}'")
    content = download(page, "JSON", tmp_path / "a-class_2-gradcam.json")
    assert json.loads(content)["threshold"] == 0.36
    # Each of the top classes is a stop of its own; the space bar chooses it.
    page.evaluate("document.querySelector('#top input:checked').focus()")
    page.press("Tab")
    page.press(" ")
    page.wait(f"{MESSAGE}.startsWith('class 0')")


def test_any_class_is_found_by_its_name(page: Browser, tmp_path: Path) -> None:
    show(page, picture(tmp_path / "a.png", (20, 30, 60, 70)))
    page.evaluate("document.querySelector('input[aria-label=\"Any class\"]').focus()")
    page.send("Input.insertText", text="ss 1")
    page.press("ArrowDown")
    page.press("Enter")
    page.wait(f"{MESSAGE}.startsWith('class 1')")
    page.evaluate("document.querySelector('#top input').click()")
    page.wait(f"{MESSAGE}.startsWith('class 2')")
    page.wait("document.querySelector('input[aria-label=\"Any class\"]').value === ''")


def test_what_is_no_picture_gets_a_message(page: Browser, tmp_path: Path) -> None:
    broken = tmp_path / "<img src=x onerror=alert(1)>.png"
    broken.write_text("no picture")
    page.upload("input[type=file]", broken)
    page.wait(f"{MESSAGE}.includes('is not a readable image: unknown format.')")
    assert page.evaluate("document.querySelectorAll('#facts [role=alert]').length") == 1
    assert not page.evaluate(f"document.querySelector('#facts img') || {IMAGE}")
    page.evaluate("document.querySelector('button[aria-label=Clear]').click()")
    page.wait(READY)
    page.wait("document.querySelector('input[type=file]')")
    show(page, picture(tmp_path / "a.png", (20, 30, 60, 70)))


def test_a_narrow_screen_keeps_the_picture_in_sight(page: Browser, tmp_path: Path) -> None:
    page.resize(375, 800)
    show(page, picture(tmp_path / "a.png", (20, 30, 60, 70)))
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.evaluate("document.querySelector('input[type=range]').scrollIntoView({block: 'end'})")
    top, bottom = page.evaluate(f"(r => [r.top, r.bottom])({IMAGE}.getBoundingClientRect())")
    assert top >= 0
    assert bottom < 500


def status_of(url: str, data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_server_refuses_other_hosts_files_and_large_uploads(server: Server) -> None:
    assert status_of(server.url) == 200
    assert status_of(server.url, Host="a-page-elsewhere.org") == 400
    assert status_of(f"{server.url}/gradio_api/file={Path(__file__)}") == 403

    def upload(size: int) -> int:
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        kind: Any = {"Content-Type": "multipart/form-data; boundary=x"}
        content = part + bytes(size) + b"\r\n--x--\r\n"
        return status_of(f"{server.url}/gradio_api/upload", content, **kind)

    assert upload(2**25) == 200
    assert upload(2**25 + 2**20) == 413
