"""Progress: on stderr, and none for work that was not needed."""

import contextlib
import io
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kgradcam import progress


def test_a_bar_counts_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("boxes", 3, "heatmaps") as advance:
        advance(1)
        advance(2)
    captured = capsys.readouterr()
    assert "3/3 heatmaps" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_work_that_was_not_needed_leaves_no_bar(
    capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    with progress.bar("boxes", 3, "heatmaps", quiet):
        pass
    captured = capsys.readouterr()
    assert "boxes" not in captured.err + captured.out


def test_without_a_terminal_there_are_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 4))  # every look at it is four seconds later
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.bar("heatmaps", 40, "images") as advance:
        for _ in range(4):
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # one on the way, and one at the end
    assert re.fullmatch(r"heatmaps: 30/40 images, [\d.]+/s, \d+ s left", lines[0])
    assert re.fullmatch(r"heatmaps: 40/40 images, [\d.]+/s", lines[1])


def test_what_is_done_in_a_moment_leaves_no_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    for steps, lines in ((5, 0), (15, 2)):
        with progress.bar("annotations", steps, "images", brief=True) as advance:
            for _ in range(steps):
                advance(1)
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_in_a_terminal_there_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.bar("boxes", 3, "heatmaps") as advance:
        advance(3)
    told = capsys.readouterr().err
    assert "3/3" in told
    assert "elapsed" in told


def test_threads_that_redirect_stdout_leave_it_as_it_was() -> None:
    stdout = sys.stdout
    inside = threading.Barrier(4)

    def redirect(number: int) -> str:
        target = io.StringIO()
        inside.wait(60)
        with progress.redirect_stdout(target):
            print(number)
            with contextlib.suppress(KeyboardInterrupt), progress.redirect_stdout(io.StringIO()):
                raise KeyboardInterrupt
            print(number)
        return target.getvalue()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            assert list(pool.map(redirect, range(4))) == [f"{i}\n{i}\n" for i in range(4)]
    assert sys.stdout is stdout


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (True, True), (False, False)])
def test_a_step_shows_a_spinner_in_a_terminal_only(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    quiet: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich asks the stream in its own way
    with progress.step("loading resnet50", quiet):
        pass
    captured = capsys.readouterr()
    assert ("loading resnet50" in captured.err) == (terminal and not quiet)
    assert captured.out == ""
