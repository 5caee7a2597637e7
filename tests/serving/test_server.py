"""The example of docs/serving.md serves an export on loopback, under load and bad requests."""

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

from kgradcam import GradCAM, export_model

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
DOCS = Path(__file__).resolve().parents[2] / "docs"


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("served") / "1"
    export_model(GradCAM(network()), folder, class_names=["ant", "bee", "cat"], top=2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    command = ["-m", "uvicorn", "--app-dir", str(DOCS), "serve:app", "--port", str(number)]
    environment = {**os.environ, "MODEL": str(folder)}
    server = subprocess.Popen([sys.executable, *command], env=environment)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if server.poll() is not None or probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.1)
        assert server.poll() is None
        yield number
    finally:
        server.terminate()
        server.wait()


def post(port: int, content: bytes, length: int | None = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Length": str(len(content) if length is None else length)}
    connection.request("POST", "/explain", content, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.slow
def test_many_requests_at_once_get_their_own_answers(port: int) -> None:
    contents = [picture(seed) for seed in range(8)]
    alone = [post(port, content) for content in contents]
    assert all(status == 200 for status, _ in alone)
    assert len({json.dumps(answer["scores"]) for _, answer in alone}) == 8
    assert np.shape(alone[0][1]["heatmaps"]) == (2, 30, 30)
    assert {*alone[0][1]["names"]} < {"ant", "bee", "cat"}
    with ThreadPoolExecutor(4) as clients:
        together = [*clients.map(lambda content: post(port, content), contents * 8)]
    for (status, answer), (_, expected) in zip(together, alone * 8, strict=True):
        assert status == 200
        assert answer["names"] == expected["names"]
        np.testing.assert_allclose(answer["heatmaps"], expected["heatmaps"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "length", "status"),
    [
        (b"", None, 422),
        (b"no picture", None, 422),
        (picture(0)[:60], None, 422),
        (picture(0)[:16] + b"\x00\x01\x00\x00" * 2 + picture(0)[24:], None, 422),  # 65536 x 65536
        (b"", 100 * 2**20, 413),
    ],
)
def test_bad_requests_get_4xx_and_good_ones_go_on(
    content: bytes, length: int | None, status: int, port: int
) -> None:
    assert post(port, content, length)[0] == status
    assert post(port, picture(1))[0] == 200
