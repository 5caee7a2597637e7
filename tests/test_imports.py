"""The order of the rooms, the rooms without TensorFlow, the size of files, and the public names."""

import ast
import importlib.util
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kgradcam"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
ROOMS = (
    *("data", "heatmaps", "boxes", "models", "serving", "runs", "refine"),
    *("metrics", "evaluation", "export", "pictures"),
)
LIGHT_ROOMS = ("data", "boxes", "runs", "refine", "metrics", "evaluation", "export")
ORDER = (
    ("errors", "_version"),
    ("storage",),
    ("files", "progress", "devices"),
    ("data", "heatmaps", "boxes"),
    *((room,) for room in (*ROOMS[3:], "training", "cli", "__main__")),
)
NEEDS_TENSORFLOW = {
    "devices",
    "data.dataset",
    "data.sources",
    "data.tfds_records",
    "data.voc_builder",
    "runs.run_classes",
    "runs.run_dataset",
    "runs.beam_engine",  # and Beam
    "runs.describing",
    "runs.detection",
    "runs.explaining",
    "runs.planning",
    "runs.shards",
    "refine.network",
    "refine.policy_training",
    "refine.q_learning",
    "metrics.attribution",
    "metrics.faithfulness",
    "metrics.randomization",
    "evaluation.explanations",
}


def imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):  # also inside functions
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    level = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imported_names(path):
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0].replace("__version__", "_version")
        if package == "kgradcam" and room != own:
            assert level[room] < level[own], f"{own} imports {name}"


def test_ground_data_boxes_runs_metrics_and_evaluation_import_no_tensorflow() -> None:
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in MODULES]
    light = (*ORDER[0], *ORDER[1], *ORDER[2], *LIGHT_ROOMS)
    chosen = [
        f"kgradcam.{name.removesuffix('.__init__')}"
        for name in names
        if name.startswith(light) and name not in NEEDS_TENSORFLOW
    ]
    assert len(chosen) > 25
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'tensorflow', 'keras'} & set(sys.modules), name\n"
    )
    subprocess.run([sys.executable, "-c", program, *chosen], check=True)


def test_importing_the_package_imports_nothing_of_weight() -> None:
    """Its own name and version, and the library that imports the rest on first use."""
    program = (
        "import sys; before = set(sys.modules); import kgradcam\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))\n"
        "print(sorted(name for name in sys.modules if name.startswith('kgradcam')))"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown.splitlines() == [
        "['kgradcam', 'lazy_loader']",
        "['kgradcam', 'kgradcam._version']",
    ]


def test_no_file_is_longer_than_350_lines() -> None:
    files = [path for suffix in ("py", "js", "css") for path in PACKAGE.rglob(f"*.{suffix}")]
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


@pytest.mark.parametrize("room", ["", *(f".{room}" for room in (*ROOMS, "training"))])
def test_public_names_exist_and_hide_no_module(room: str) -> None:
    """A lazy name of a module would be the module once that is imported, else the name."""
    package = importlib.import_module(f"kgradcam{room}")
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None
        is_module = isinstance(getattr(package, name), types.ModuleType)
        if Path(package.__file__).with_suffix(".pyi").exists() and not is_module:
            assert importlib.util.find_spec(f"{package.__name__}.{name}") is None, name


def test_docs_import_from_the_package_or_a_room() -> None:
    pages = [PACKAGE.parent / "README.md", *(PACKAGE.parent / "docs").rglob("*.md")]
    found = {
        name
        for page in pages
        for name in re.findall(r"^(?:from|import) (kgradcam\S*)", page.read_text("utf-8"), re.M)
    }
    assert found <= {"kgradcam", *(f"kgradcam.{room}" for room in (*ROOMS, "training"))}
