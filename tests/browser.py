"""Drives a headless Chromium by the Chrome DevTools Protocol, over pipes."""

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """A browser with one page.

    Attributes:
        requested: The URL of each request of the page.
        complaints: Errors that the page has logged.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        options = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        )

        def connect() -> None:
            """Commands are read from descriptor 3, and answers written to 4."""
            copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (commands, answers)]
            for i, copy in enumerate(copies):
                os.dup2(copy, 3 + i)

        self._process = subprocess.Popen(
            [CHROMIUM, *options], preexec_fn=connect, pass_fds=(3, 4), stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._number, self._session = 0, None
        threading.Thread(target=self._read, daemon=True).start()
        targets = self.send("Target.getTargets")["targetInfos"]
        (page,) = [each["targetId"] for each in targets if each["type"] == "page"]
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._answers.get(timeout=60)
        assert answer["id"] == self._number
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, program: str) -> Any:
        """Returns the value of a JavaScript expression, or of the promise that it is."""
        found = self.send(
            "Runtime.evaluate", expression=program, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, program: str, seconds: float = 60) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"!!({program})"):
            assert time.monotonic() < end, f"{program} stays false"
            time.sleep(0.02)

    def upload(self, selector: str, *paths: Path) -> None:
        """Chooses files in an input of files."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def press(self, key: str) -> None:
        """Presses a key: Tab, Enter, ArrowDown and such, or a letter."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = codes.get(key, ord(key[0].upper()))
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._out)

    def _read(self) -> None:
        with os.fdopen(self._in, "rb") as answers:
            rest = b""
            while part := answers.read1(2**20):
                *whole, rest = (rest + part).split(b"\0")
                for each in whole:
                    self._sort(json.loads(each))

    def _sort(self, message: dict[str, Any]) -> None:
        """Keeps an answer; of the events, the requests and the errors."""
        parameters = message.get("params", {})
        if "id" in message:
            self._answers.put(message)
        elif message["method"] == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif message["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(
                f"{parameters['entry']['text']} {parameters['entry'].get('url')}"
            )
        elif message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
