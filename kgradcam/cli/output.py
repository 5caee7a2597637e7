"""Prints results on stdout, and messages on stderr.

By `print`, since click writes UTF-8 to a console whose encoding is ASCII.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kgradcam.errors import UserError


def print_result(result: Any, form: str, out: Path | None = None, quiet: bool = False) -> None:
    """Prints a `Result` as `table`, `json`, `csv`, `markdown` or `latex`.

    `out` is a folder to write evaluation.json, .csv and .md to as well, and charts as PNG. Files of
    an older result with these names are replaced or removed.
    """
    if out is not None:
        _write_result(result, out)
    if form == "table":
        print_result_table(result)
        if result.curves and result.chosen_on_the_test and len(result.classes) > 1:
            print_result_table(result.of_best_option())
    else:
        text = getattr(result, f"to_{form}")().rstrip("\n")
        print(_plain_json(text) if form == "json" else plain(text))
    if out is not None:
        note(str(out), quiet)


def _write_result(result: Any, out: Path) -> None:
    from kgradcam.files import write_atomically
    from kgradcam.pictures.charts import CHARTS, draw_charts
    from kgradcam.pictures.figures import save

    out.mkdir(parents=True, exist_ok=True)
    for name in ("evaluation.json", *(f"{chart}.png" for chart in CHARTS)):
        (out / name).unlink(missing_ok=True)
    for name, figure in draw_charts(result).items():
        save(figure, out / f"{name}.png")
    write_atomically(out / "evaluation.csv", result.to_csv())
    write_atomically(out / "evaluation.md", result.to_markdown() + "\n")
    # Last, since its presence marks a complete folder.
    write_atomically(out / "evaluation.json", result.to_json() + "\n")


def require_absent(
    out: Path | None, force: bool, *inputs: Path | str | None, suffixes: Sequence[str] = ()
) -> None:
    """Fails early if --out cannot be written, or would replace a file that must stay.

    Args:
        out: The file or folder to write, if any.
        force: Whether it may replace another one.
        inputs: Files that the command reads, and folders whose files it reads; never replaced.
        suffixes: The suffixes of its formats, lower case, for a file. A stream has none.
    """
    from kgradcam.files import is_stream
    from kgradcam.storage import is_remote

    if out is None or is_stream(out):
        return
    if is_remote(out):
        raise UserError(
            f"--out must be a local path, since an object store keeps runs only. Received: {out}."
        )
    if suffixes and out.suffix.lower() not in suffixes:
        raise UserError(
            f"--out must end in {' or '.join(suffixes)}, which is its format. Received: {out}."
        )
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{out} cannot be written: {above} is not a folder. Choose another --out.")
    if not out.exists():
        return
    for each in [Path(each) for each in inputs if each]:
        if each.exists() and (out.samefile(each) or each.resolve() in out.resolve().parents):
            raise UserError(
                f"--out {out} is an input of this command, so even --force does not replace it. "
                "Choose another --out."
            )
    if not (out.is_dir() or out.is_file()):
        raise UserError(f"{out} is a device. Choose another --out.")
    if suffixes and out.is_dir():
        raise UserError(f"{out} is a folder. Give --out a file in it: {out / f'out{suffixes[0]}'}.")
    if not force:
        raise UserError(
            f"{out} already exists. Choose another --out, or overwrite it with --force."
        )


def report_skipped(skipped: Sequence[dict[str, str]]) -> None:
    """Lists the skipped images, one line each, and their number."""
    for each in skipped:
        note(f"skipped {each['file']}: {' '.join(each['reason'].split())}")
    if skipped:
        note(f"{len(skipped)} images skipped.")


def note(text: str, quiet: bool = False) -> None:
    """Prints a message on stderr; numbers and names of a thousand characters are cut."""
    if not quiet:
        text = re.sub(r"\S{1000,}", lambda found: f"{found[0][:100]}...", text)
        print(plain(text), file=sys.stderr)


def plain(text: str) -> str:
    """Escapes control characters: a name from an untrusted file must not control the terminal."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def _plain_json(text: str) -> str:
    """Escapes control characters as JSON does; without this, those from U+0080 on stay."""
    return "".join(
        each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text
    )


def print_json(content: Any) -> None:
    """Prints one JSON object on stdout."""
    print(json.dumps(content, indent=1))


def print_result_table(result: Any) -> None:
    """Prints a `Result` as a table, in the first layout that the terminal is wide enough for."""
    for layout in ("wide", "by iou", "by measure"):
        table = _table(*result.table(layout))
        if _fits(table):
            break
    _print(result.title, table)


def print_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Prints a table on stdout; into a pipe, at its full width."""
    _print(title, _table(header, lines))


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    look: Any = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False}
    table = Table(collapse_padding=True, **look)
    for i, name in enumerate(header):
        # Where the terminal is too narrow, names wrap and numbers stay whole.
        width = max(len(cell) for cell in (name, *(line[i] for line in lines)))
        numbers: Any = {"justify": "right", "no_wrap": True, "min_width": width}
        table.add_column(name, **({"overflow": "fold"} if i == 0 or name == "run" else numbers))
    for line in lines:
        # Names from data are plain text, never markup.
        table.add_row(*(Text(plain(cell)) for cell in line))
    return table


def _fits(table: Any) -> bool:
    from rich.console import Console

    return not sys.stdout.isatty() or _width(table) <= Console().width


def _width(table: Any) -> int:
    from rich.console import Console

    return int(Console(width=10_000).measure(table).maximum)


def _print(title: str, table: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    # A pipe has no width, so the table takes the width it needs and no cell is cut.
    width = None if sys.stdout.isatty() else max(_width(table), len(title))
    console = Console(width=width)
    console.print(Text(plain(title), style="italic"))  # a title of the table wraps at its width
    console.print(table)
