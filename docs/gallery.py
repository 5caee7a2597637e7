"""Makes the pictures of gallery.md: runs its commands on the photographs of scikit-image.

    python docs/gallery.py [NAME...]

Each picture of the page belongs to the block of commands above it. The last command of the block
writes it, as `--out NAME.png` or a report; METHOD stands for each method. With NAMEs, only those
pictures and the commands that they need are made. A report needs Chromium for its picture.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import PIL.Image

from kgradcam.cli.completion import METHODS

PAGE = Path(__file__).parent / "gallery.md"
PICTURES = PAGE.parent / "pictures" / "gallery"
_PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket")
_LARGEST = (960, 1440)
_QUALITY = 80


def blocks() -> list[tuple[list[str], list[str]]]:
    """Returns the commands of each block of the page, and the names of the pictures after it."""
    found: list[tuple[list[str], list[str]]] = []
    for commands, name in re.findall(
        r"```sh\n(.*?)```|\(pictures/gallery/([^)]+)\.jpg\)", PAGE.read_text("utf-8"), re.DOTALL
    ):
        if commands:
            found.append((commands.splitlines(), []))
        else:
            found[-1][1].append(name)
    return found


def make(names: list[str], folder: Path = PICTURES) -> None:
    """Makes the pictures with these names in a folder; none stands for all."""
    import skimage.data  # of the extra demo

    with tempfile.TemporaryDirectory() as work:
        for name in _PHOTOGRAPHS:
            PIL.Image.fromarray(getattr(skimage.data, name)()).save(Path(work) / f"{name}.png")
        for commands, pictures in blocks():
            wanted = [name for name in pictures if not names or name in names]
            if not wanted:
                continue
            methods = [name for name in METHODS if name in wanted]
            for command in commands:
                for method in methods if "METHOD" in command else [""]:
                    words = shlex.split(command.replace("METHOD", method))
                    if Path(work, words[words.index("--out") + 1]).exists():
                        continue  # made by a block before
                    subprocess.run([sys.executable, "-m", *words, "--quiet"], cwd=work, check=True)
            for name in wanted:
                _convert(Path(work), name, folder / f"{name}.jpg")


def _convert(work: Path, name: str, target: Path) -> None:
    """Writes a small JPEG of a picture, of the first chart of a folder, or of a page."""
    source = work / f"{name}.png"
    if (page := work / f"{name}.html").exists():
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        if browser is None:
            print(f"{target} is left as it is: no chromium on PATH", file=sys.stderr)
            return
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=960,1700")
        # A page fills its cards when they come into view.
        options += ("--virtual-time-budget=8000", "--run-all-compositor-stages-before-draw")
        subprocess.run([browser, *options, f"--screenshot={source}", page.as_uri()], check=True)
    with PIL.Image.open(source) as picture:
        small = picture.convert("RGB")
    target.parent.mkdir(parents=True, exist_ok=True)
    small.thumbnail(_LARGEST)
    small.save(target, quality=_QUALITY, optimize=True)


if __name__ == "__main__":
    make(sys.argv[1:])
