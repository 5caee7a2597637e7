"""`run.json`: readable, and back to the same `RunInfo`."""

import json
from dataclasses import replace

import pytest
from helpers import made_up_info
from hypothesis import given
from hypothesis import strategies as st

from kgradcam.errors import UserError
from kgradcam.runs.run_info import Counts, RunInfo, SkippedImage


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
    st.lists(st.tuples(st.text(max_size=8), st.text(max_size=20)), max_size=2),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.dictionaries(st.text(max_size=4), st.lists(st.integers(0, 999)).map(tuple), max_size=2),
)
def test_the_text_is_the_info(classes, skipped, thresholds, outputs) -> None:
    info = made_up_info(thresholds, classes=tuple(classes), layer=("a", "[ b,\n]"))
    info = replace(
        info,
        model=replace(info.model, outputs=outputs),
        counts=Counts(1, 2, 3, 4),
        skipped=tuple(SkippedImage(*each) for each in skipped),
    )
    content = json.loads(info.to_text())
    assert content == json.loads(json.dumps(info.to_json()))
    assert RunInfo.from_json(content) == info


def test_lists_of_numbers_are_on_one_line() -> None:
    info = made_up_info([0.25, 0.5])
    info = replace(info, model=replace(info.model, outputs={"dog": tuple(range(151, 269))}))
    lines = info.to_text().splitlines()
    assert '    "thresholds": [0.25, 0.5],' in lines
    assert sum(len(line) > 100 for line in lines) == 1  # the outputs
    assert len(lines) < 75


def test_another_schema_is_refused_with_a_way_out() -> None:
    content = {**made_up_info().to_json(), "schema": 3}
    with pytest.raises(UserError, match=r"has the schema 3; .* reads 4. Make the run anew with"):
        RunInfo.from_json(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": {"images": 1.5}}, "run.json.counts.images must be int; it is 1.5"),
        ({"colour": "red"}, "run.json has the unknown field 'colour'"),
        ({"versions": {"keras": 3}}, "run.json.versions.keras must be str; it is 3"),
        ({"skipped": [{"file": "a"}]}, "missing 1 required positional argument: 'reason'"),
    ],
)
def test_wrong_types_are_named_by_their_path(change: dict[str, object], message: str) -> None:
    content = json.loads(made_up_info().to_text()) | change
    with pytest.raises(TypeError, match=message):
        RunInfo.from_json(content)
