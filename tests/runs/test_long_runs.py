"""Long runs: memory and open files do not grow with the number of images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys
from pathlib import Path
from kgradcam.runs.configuration import Configuration
from kgradcam.runs.detection import detect
from kgradcam.runs.run_writer import RunWriter

rows, add = [], RunWriter.add

def watched(writer, *arguments):
    add(writer, *arguments)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    rows.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))

RunWriter.add = watched
detect(
    Configuration(
        dataset=sys.argv[1], split="all", classes=("dog=2",), model=sys.argv[2],
        image_size=32, score_scales=(), refine=False,
    ),
    Path(sys.argv[3]),
    quiet=False,
)
print(json.dumps(rows))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="Linux tells it there only")
def test_neither_memory_nor_open_files_grow(make_voc, tiny_model: Path, tmp_path: Path) -> None:
    """2,000 small images by default; `KGRADCAM_IMAGES=50000` makes it a long run."""
    count = int(os.environ.get("KGRADCAM_IMAGES", "2000"))
    folder = make_voc("many")
    folder.add("0", [("dog", (2, 2, 20, 15))], size=(32, 24))
    for i in range(1, count):  # hard links: another name for the same file
        for part, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            os.link(folder.root / part / f"0.{suffix}", folder.root / part / f"{i}.{suffix}")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder.root, tiny_model, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)
    assert len(rows) == -(-count // 16)
    # The first fifth fills TensorFlow's pools and the queues between threads.
    settled = rows[len(rows) // 5 :]
    memory = [resident for resident, _ in settled]
    files = [opened for _, opened in settled]
    assert max(memory) < 1.03 * memory[0], f"{memory[0] / 1e6:.0f} to {max(memory) / 1e6:.0f} MB"
    assert max(files) <= files[0] + 2, f"{files[0]} to {max(files)} files"
    counts = json.loads((tmp_path / "run/run.json").read_text("utf-8"))["counts"]
    assert counts == {"images": count, "heatmaps": count, "objects": count, "skipped": 0}
    if count > 10_000:
        print(f"{memory[0] / 1e6:.0f} to {max(memory) / 1e6:.0f} MB, {files[0]} to {max(files)}")
