"""A store of objects on loopback: moto's S3, which can be slow, fail and cut its answers short."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDNOTTOBESHOWN",
    "AWS_SECRET_ACCESS_KEY": "secret-that-nothing-may-show",
    "AWS_SESSION_TOKEN": "token-that-nothing-may-show",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "none",
    "AWS_MAX_ATTEMPTS": "3",
}
SECRETS = [ENVIRONMENT[f"AWS_{name}"] for name in ("SECRET_ACCESS_KEY", "SESSION_TOKEN")]
"""What no output and no file may hold."""
_BUSY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Try later.</Message></Error>'


@dataclass
class Store:
    """A bucket of the store.

    Attributes:
        endpoint: The URL of the server.
        bucket: Its name.
        seconds: What each answer waits for.
        fails: Whether the request of this number, from 0, fails with 503.
        cuts: Whether the answer of this number ends half way.
        requests: `GET /bucket/key` of each request so far.
        sent: Each request so far that did not fail, and the number of bytes of its answer.
    """

    endpoint: str
    bucket: str = ""
    seconds: float = 0.0
    fails: Callable[[int], bool] = lambda number: False
    cuts: Callable[[int], bool] = lambda number: False
    requests: list[str] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    def upload(self, folder: Path, name: str) -> str:
        """Copies a folder into the bucket; returns its URL."""
        from upath import UPath

        for path in folder.rglob("*"):
            if path.is_file():
                inside = path.relative_to(folder).as_posix()
                UPath(f"{self.url}/{name}/{inside}").write_bytes(path.read_bytes())
        return f"{self.url}/{name}"

    def files(self, name: str) -> dict[str, bytes]:
        """The content of each object below a name."""
        from upath import UPath

        root = UPath(f"{self.url}/{name}")
        root.fs.invalidate_cache()
        prefix = f"{root.path}/"
        return {key.removeprefix(prefix): root.fs.cat_file(key) for key in root.fs.find(root.path)}

    def answer(self, app: Any, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """A WSGI application in front of moto's."""
        number = len(self.requests)
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.requests.append(request)
        time.sleep(self.seconds)
        if self.fails(number):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"" if environ["REQUEST_METHOD"] == "HEAD" else _BUSY
            start("503 Slow Down", [("Content-Length", str(len(body)))])
            return [body]
        body = b"".join(app(environ, start))
        self.sent.append((request, len(body)))
        return [body[: len(body) // 2]] if self.cuts(number) else [body]


@contextmanager
def serve() -> Iterator[Store]:
    """Runs the server, without a bucket."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            pass

    moto = DomainDispatcherApplication(create_backend_app)
    store = Store("")
    server = make_server(
        "127.0.0.1",
        0,
        lambda environ, start: store.answer(moto, environ, start),
        threaded=True,
        request_handler=Quiet,
    )
    store.endpoint = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


BUCKETS = (f"bucket-{i}" for i in count())
"""Names for one test each."""
