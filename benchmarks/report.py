"""What the benchmarks report alike: the machine, quartiles, tables, and the files they leave.

    python benchmarks/report.py

joins the tables of all benchmarks that have run into one page, `benchmarks/results/bench.md`.
"""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kgradcam.evaluation.tables import markdown

RESULTS = Path("benchmarks/results")


def processor() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What a number depends on, and imports nothing heavy to say it."""
    packages = ("tensorflow", "keras", "numpy", "pillow", "opencv-python-headless")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def quartiles(values: Sequence[float]) -> list[float]:
    """The lower quartile, the median and the upper quartile."""
    return [float(each) for each in np.percentile(values, [25, 50, 75])]


def spread(low: float, high: float) -> str:
    return f"{low:.1f} to {high:.1f}"


def save(
    folder: Path, name: str, content: dict[str, Any], tables: dict[str, tuple[Any, Any]]
) -> None:
    """Prints tables, header and lines by title, and writes them and `content` into a folder."""
    content = {"machine": machine(), **content}
    text = "\n".join(f"* {key}: {value}" for key, value in content["machine"].items()) + "\n"
    for title, (header, lines) in tables.items():
        text += f"\n## {title}\n\n{markdown(header, lines)}\n"
    print(text, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)


def draw(path: Path, tables: dict[str, dict[str, float]], unit: str) -> None:
    """Bars for each row of each table, in one picture."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    columns = min(len(tables), 3)
    rows = -(-len(tables) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(7 * columns, 4 * rows), squeeze=False)
    for axis in axes.flat[len(tables) :]:
        axis.remove()
    for axis, (title, bars) in zip(axes.flat, tables.items(), strict=False):
        names = list(bars)[::-1]
        axis.barh(names, [bars[name] for name in names], color="#4c78a8")
        axis.set(title=title, xlabel=unit)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def join(folder: Path = RESULTS) -> str:
    """Returns the tables of all benchmarks in a folder, below one description of the machine."""
    pages = [path.read_text() for path in sorted(folder.glob("*.md")) if path.stem != "bench"]
    heads, tables = zip(*(page.split("\n## ", 1) for page in pages), strict=True)
    return "\n## ".join([heads[0], *tables])


if __name__ == "__main__":
    (RESULTS / "bench.md").write_text(join())
    print(join())
