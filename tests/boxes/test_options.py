"""Mistyped box options."""

import pytest

from kgradcam.boxes.options import BoxOptions
from kgradcam.errors import UsageError


def test_the_default_score_follows_from_the_rules() -> None:
    assert BoxOptions().score == "expected-iou"
    assert BoxOptions("single-threshold").score == "density"
    assert BoxOptions(score="heat").score == "heat"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rules": "level"}, "Did you mean 'levels'"), ({"score": "heta"}, "Did you mean 'heat'")],
)
def test_wrong_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BoxOptions(**options)
