"""Damaged and random bytes for each reader; inputs that once failed are in `fuzzing/corpus`."""

from pathlib import Path

import pytest
from fuzzing.samples import SAMPLES
from fuzzing.targets import TARGETS, feed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "fuzzing" / "corpus"


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """A valid sample with up to six random replacements, deletions or insertions."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        put = draw(st.binary(max_size=12) | st.sampled_from([b"\xff" * 8, b"0", b"-1", b"9" * 12]))
        data[place : place + length] = put
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_input_gives_a_value_or_a_user_error(name: str, data: st.DataObject) -> None:
    feed(name, data.draw(damaged(SAMPLES[name]) | st.binary(max_size=300)))


@pytest.mark.parametrize("name", TARGETS)
def test_the_samples_are_valid(name: str) -> None:
    for sample in SAMPLES[name][:1]:
        TARGETS[name](sample)


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_inputs_that_once_failed(path: Path) -> None:
    feed(path.name.partition("-")[0], path.read_bytes())
