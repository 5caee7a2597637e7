"""Progress: on stderr, and nothing of what was not done."""

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
