"""Every Python snippet of the documentation runs, in its page's order."""

import ast
import base64
import io
import json
import re
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

from kgradcam import GradCAM, list_layers
from kgradcam.cli.commands import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for snippet in snippets(page):
        exec(compile(snippet, page.name, "exec"), namespace)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs").glob("*.ipynb")), ids=lambda path: path.name
)
def test_a_notebook(path: Path) -> None:
    """Each cell gives the output that is stored with it: nearly the same picture, or the text."""
    notebook, namespace = json.loads(path.read_text("utf-8")), {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    for cell in cells:
        *statements, last = ast.parse("".join(cell["source"])).body
        assert isinstance(last, ast.Expr)
        exec(compile(ast.Module(statements, []), path.name, "exec"), namespace)
        value = eval(compile(ast.Expression(last.value), path.name, "eval"), namespace)
        (stored,) = cell["outputs"]
        if "image/jpeg" in stored["data"]:
            content = base64.b64decode(stored["data"]["image/jpeg"])
            with PIL.Image.open(io.BytesIO(content)) as old:
                with PIL.Image.open(io.BytesIO(value._repr_png_())) as new:
                    found = np.asarray(new.convert("RGB").resize(old.size), np.float64)
                assert np.abs(np.asarray(old, np.float64) - found).mean() < 4
        else:
            assert stored["data"]["text/plain"] == [repr(value)]


def test_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(np.full((48, 64, 3), 127, np.uint8)).save("cat.jpg")
    model = keras.Sequential(
        [
            keras.Input((32, 48, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1000, activation="softmax"),
        ]
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    namespace: dict[str, object] = {
        "model": model,
        "images": images,
        "photograph": images[0],
        "width": 48,
        "height": 32,
    }
    found = snippets(ROOT / "README.md")
    assert len(found) == 2
    for snippet in found:
        exec(compile(snippet, "README.md", "exec"), namespace)
    assert np.shape(namespace["picture"]) == (32, 48, 3)
    with PIL.Image.open("overlay.png") as overlay:
        assert overlay.width > 64


DEFAULT_LAYERS = re.findall(
    r"^\| (\w+) \| `(\w+)`.*\| (\w+ x \w+ x \d+) \|$",
    (ROOT / "docs" / "layers.md").read_text("utf-8"),
    re.MULTILINE,
)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "layer", "shape"), DEFAULT_LAYERS)
def test_the_default_layer_of_every_family(network: str, layer: str, shape: str) -> None:
    """The table holds, and the explainer runs on each: heatmaps of the layer's size, finite."""
    model = getattr(keras.applications, network)(weights=None)
    cam = GradCAM(model)
    calls, default = list_layers(model)
    # Keras numbers the layers that have no name of their own through the session.
    numbered = re.match(r"(activation|add)_\d+$", layer)
    if numbered:
        assert re.sub(r"_\d+$", "", cam.layer) == numbered[1]
    else:
        assert cam.layer == layer
    assert default.path == cam.layer
    assert " x ".join(str(side or "any") for side in default.shape) == shape
    size = model.input_shape[1] or 64
    heatmaps = cam(np.random.default_rng(0).uniform(0, 255, (1, size, size, 3))).heatmaps
    assert heatmaps.shape[2:] == tuple(side or 2 for side in default.shape[:2])
    assert np.isfinite(heatmaps).all()
    assert len(calls) > 10


def test_the_table_names_every_family() -> None:
    families = {re.match(r"[A-Za-z]+", network)[0] for network, _, _ in DEFAULT_LAYERS}
    assert families >= {
        *("ConvNeXtTiny", "DenseNet", "EfficientNetB", "EfficientNetV", "InceptionResNetV"),
        *("InceptionV", "MobileNet", "MobileNetV", "NASNetMobile", "ResNet", "VGG", "Xception"),
    }


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_lists_of_pages_commands_and_rooms_are_complete() -> None:
    index, commands, rooms = (
        (ROOT / "docs" / name).read_text("utf-8")
        for name in ("index.md", "command.md", "development.md")
    )
    linked = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert linked == {page.name for page in PAGES} - {"index.md"}
    cells = re.findall(r"^\| (`.*?) \|", commands.partition("| exit code")[0], re.MULTILINE)
    names = {each.callback.__name__.replace("_", "-") for each in app.registered_commands}
    assert set(re.findall(r"`([\w-]+)`", " ".join(cells))) == names
    folders = {path.parent.name for path in ROOT.glob("kgradcam/*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", rooms, re.MULTILINE)) - {"kgradcam"} == folders


def test_every_promise_names_a_test_that_exists() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"\btest_\w+(?:\.py)?", text))
    assert len(named) > 30
    for name in named:
        assert name in files or f"def {name}(" in tests, name


def literals(path: Path) -> str:
    """The strings of a module, one a line; an f-string has `{}` in place of its values."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [getattr(part, "value", "") for part in node.values]
            lines.append("".join(part if isinstance(part, str) else "{}" for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            lines.append(node.value)
    return "\n".join(lines)


def test_every_heading_of_troubleshooting_is_a_message() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    headings = re.findall(r"^### (.*)$", page.partition("### A heatmap of zeros")[0], re.MULTILINE)
    source = "\n".join(literals(path) for path in (ROOT / "kgradcam").rglob("*.py"))
    assert len(headings) > 20
    for heading in headings:
        # Values: `...`, N, WxH, and numbers.
        for part in re.split(r"'\.\.\.'|\.\.\.|\bN\b|WxH|[\d,x]{5,}", heading):
            assert part in source, heading


def named_files(text: str) -> set[str]:
    return set(re.findall(r"`((?:\w+/)+\w+\.py)`", text))


def test_every_file_of_the_development_page_exists() -> None:
    found = named_files((ROOT / "docs/development.md").read_text("utf-8"))
    assert len(found) > 20
    for name in found:
        assert (ROOT / name).exists() or (ROOT / "kgradcam" / name).exists(), name


def test_every_use_of_a_private_part_is_listed() -> None:
    page = (ROOT / "docs/development.md").read_text("utf-8")
    section = page.partition("## Private parts")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `([\w/]+\.py)`", section, re.MULTILINE))
    private = re.compile(
        r"compat\.v1|tensorflow\.(core|python(?!\.keras))|keras\.src(?!\.engine)"  # not tf_keras
        r"|\.__call__ =|_get_variable_index"
    )
    package = ROOT / "kgradcam"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if private.search(path.read_text("utf-8"))
    }
    assert found == listed
