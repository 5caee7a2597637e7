"""The page of `kgradcam explore`: the widgets of Gradio around an `Explorer`, and their server.

The page makes no request to another host. Gradio's telemetry, its links and its history of runs are
switched off, and a content security policy forbids requests that a later version might add.
"""

import html
import ipaddress
import os
import re
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from kgradcam.errors import UserError
from kgradcam.heatmaps.methods import METHODS
from kgradcam.pictures.blending import OPACITY
from kgradcam.pictures.explorer import COSTLY, THRESHOLD, Choice, Explorer, Source, View

MAX_UPLOAD_BYTES = 2**25
MAX_LISTED = 2000
"""The most images of a dataset that the page lists."""
_MAX_WRITTEN = 100  # views whose files are kept
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'"
_STYLE = """
.gradio-container { overflow: clip !important; }  /* hidden would switch sticky off */
#seen { position: sticky; top: 0; z-index: 10; align-self: flex-start; }
#result img { max-height: 72vh; object-fit: contain; }
#top label { width: 100%; }
#facts table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
#facts tr, #facts td, #facts th { border: none; padding: 0 1.2rem 0.2rem 0; text-align: right; }
#facts th { font-weight: normal; opacity: 0.7; }
@media (max-width: 700px) { #result img { max-height: 42vh; } }
"""


Sources = dict[str, tuple[str, Source]]
"""The pictures of a session: the name and the place of each, by a key that stays."""


@dataclass(frozen=True)
class Shown:
    """The values of the widgets after a choice.

    Attributes:
        message: HTML: the class and the boxes, or why there is no view.
        view: The view, if there is one.
    """

    message: str
    view: View | None = None


def show(explorer: Explorer, source: Source | None, choice: Choice) -> Shown:
    """Explains a choice; a mistake of the user becomes a message."""
    if source is None:
        return Shown('<p role="status">Drop a picture to begin.</p>')
    try:
        view = explorer.view(source, choice)
    except UserError as error:
        return Shown(f'<p role="alert"><strong>{html.escape(str(error))}</strong></p>')
    return Shown(describe(view), view)


def describe(view: View) -> str:
    """Returns the class, the layer and the boxes of a view as HTML."""
    count = len(view.boxes)
    rows = "".join(
        f"<tr><td>{score:.2f}</td>{''.join(f'<td>{side:.0f}</td>' for side in box)}</tr>"
        for box, score in zip(view.boxes, view.scores, strict=True)
    )
    header = "".join(f"<th>{name}</th>" for name in ("score", "left", "top", "right", "bottom"))
    boxes = f"{count} box{'es' * (count != 1)}"
    width, height = view.photograph.size
    return (
        f'<p role="status"><strong>{html.escape(view.label)}</strong>: {boxes} in '
        f"{html.escape(view.photograph.name)}, {width} × {height} pixels.</p>"
        + (f"<table><tr>{header}</tr>{rows}</table>" if count else "")
    )


def write_files(view: View, folder: Path) -> tuple[Path, Path]:
    """Writes the overlay as PNG and the boxes as JSON, each with a name that explains it."""
    parts = Path(view.photograph.name).stem, view.facts["class"], view.facts["method"]
    name = "-".join(re.sub(r"\W+", "_", part)[:60] for part in parts)
    overlay, boxes = folder / f"{name}.png", folder / f"{name}.json"
    # Level 1 takes a quarter of the time of the default, for a file a fifth larger.
    PIL.Image.fromarray(view.overlay).save(overlay, compress_level=1)
    boxes.write_text(view.to_json(), encoding="utf-8")
    return overlay, boxes


def build_page(explorer: Explorer, folder: Path) -> Any:
    """Returns the page as `gradio.Blocks`; its files go to `folder`."""
    import gradio as gr

    examples = explorer.dataset.examples[:MAX_LISTED] if explorer.dataset else []
    listed: Sources = {str(i): (each.file_name, i) for i, each in enumerate(examples)}
    written: deque[Path] = deque()

    with gr.Blocks(analytics_enabled=False, title=f"kgradcam: {explorer.name}") as page:
        sources = gr.State(listed)
        gr.Markdown(f"## Where does {_plain(Path(explorer.name).name)} look?")
        with gr.Row():
            upload = gr.File(
                label="Pictures", file_count="multiple", file_types=["image"], height=140
            )
            picture = gr.Dropdown(_options(listed), value=None, label="Picture")
        with gr.Row():
            with gr.Column(scale=3, min_width=300, elem_id="seen"):
                image = gr.Image(
                    label="Heat and boxes",
                    interactive=False,
                    elem_id="result",
                    buttons=["fullscreen"],
                )
            with gr.Column(scale=2, min_width=300):
                facts = gr.HTML(show(explorer, None, Choice()).message, elem_id="facts")
                top = gr.Radio([], label="Top classes", elem_id="top")
                other = gr.Dropdown(
                    [(f"{name} ({i})", i) for i, (name, _) in enumerate(explorer.targets)],
                    value=None,
                    label="Any class",
                    info="Type to search.",
                )
                threshold = gr.Slider(0, 1, THRESHOLD, step=0.01, label="Heat threshold of boxes")
                opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of heat")
                layer = gr.Dropdown(list(explorer.layers), label="Layer")
                method = gr.Dropdown(
                    [(f"{name} (slow)" if name in COSTLY else name, name) for name in METHODS],
                    value="gradcam",
                    label="Method",
                )
                with gr.Row():
                    png = gr.DownloadButton("Overlay (PNG)", interactive=False, min_width=120)
                    boxes = gr.DownloadButton("Boxes (JSON)", interactive=False, min_width=120)

        def add(files: Sequence[str] | None, before: Sources) -> Any:
            """Takes uploaded files instead of those before, and chooses the first new one."""
            paths = [Path(each) for each in files or ()]
            # Gradio names the folder of a file by its content.
            uploaded: Sources = {
                f"{each.parent.name}/{each.name}": (each.name, each) for each in paths
            }
            new = (key for key in uploaded if key not in before)
            chosen = next(new, next(iter(uploaded), None))
            after = {**uploaded, **listed}
            return after, gr.Dropdown(_options(after), value=chosen)

        def update(known: Sources, picture: str | None, target: int | None, *choice: Any) -> Any:
            source = None if picture is None else known[picture][1]
            shown = show(explorer, source, Choice(target, *choice))
            view = shown.view
            if view is None:
                none = gr.DownloadButton(value=None, interactive=False)
                return [gr.Image(value=None), shown.message, none, none, gr.Radio(value=None)]
            photograph = view.photograph
            written.append(Path(tempfile.mkdtemp(dir=folder)))
            if len(written) > _MAX_WRITTEN:
                shutil.rmtree(written.popleft())
            overlay_file, boxes_file = write_files(view, written[-1])
            return [
                gr.Image(value=overlay_file, alt_text=f"Heat of {view.label}, with boxes"),
                shown.message,
                gr.DownloadButton(value=overlay_file, interactive=True),
                gr.DownloadButton(value=boxes_file, interactive=True),
                gr.Radio(
                    [(explorer.label(photograph, i), i) for i in photograph.top],
                    value=view.target if view.target in photograph.top else None,
                ),
            ]

        def update_either(known: Any, picture: Any, top: Any, other: Any, *choice: Any) -> Any:
            return update(known, picture, top if other is None else other, *choice)

        def update_top(*values: Any) -> Any:
            return [*update(*values), None]  # a top class clears the other one

        def on(
            event: Any, function: Any, chosen: Sequence[Any], cleared: Sequence[Any] = ()
        ) -> None:
            event(
                function,
                [sources, picture, *chosen, layer, method, threshold, opacity],
                [image, facts, png, boxes, top, *cleared],
                show_progress="hidden",
                trigger_mode="always_last",  # of a slider that moves, the last position counts
                concurrency_id="model",
                api_visibility="private",
            )

        upload.change(add, [upload, sources], [sources, picture], api_visibility="private")
        on(picture.change, update, [other])
        on(other.input, update, [other])
        on(top.input, update_top, [top], [other])
        for event in (layer.input, method.input, threshold.input, opacity.input):
            on(event, update_either, [top, other])
    return page


def serve(explorer: Explorer, listening: socket.socket, announce: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C.

    Args:
        explorer: What it shows.
        listening: See `listen`.
        announce: Is called with the URL, just before requests are answered.
    """
    host, port = listening.getsockname()[:2]
    with tempfile.TemporaryDirectory(prefix="kgradcam-explore-") as folder:
        # Gradio reads these when it is imported. Uploads too are gone after the exit.
        os.environ.update(
            GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_TEMP_DIR=folder
        )
        import fastapi
        import gradio as gr
        import uvicorn
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        if is_loopback(host):
            # Otherwise a page of another host, whose name leads here, could read this one.
            names = ["localhost", "127.0.0.1", "[::1]", host]
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
        gr.mount_gradio_app(
            app,
            build_page(explorer, Path(folder)),
            path="/",
            footer_links=[],
            run_history=False,
            max_file_size=MAX_UPLOAD_BYTES,
            ssr_mode=False,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=_STYLE,
        )
        config = uvicorn.Config(
            app,
            log_level="critical",
            access_log=False,
            headers=[("Content-Security-Policy", _POLICY)],
            timeout_graceful_shutdown=1,
        )
        announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on an address; port 0 is any.

    Raises:
        UserError: The address does not exist, or another program has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"The page cannot listen on {host}, port {port}: {error.strerror}. Give another --host "
            "or --port; --port 0 takes any that is free."
        ) from error


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _options(sources: Sources) -> list[tuple[str, str]]:
    return [(name, key) for key, (name, _) in sources.items()]


def _plain(text: str) -> str:
    """Escapes Markdown."""
    return re.sub(r"([^\w\s./-])", r"\\\1", text)
