"""Parsing of class options."""

import pytest

from kgradcam.data import voc
from kgradcam.errors import UserError
from kgradcam.models import imagenet
from kgradcam.models.class_targets import dataset_targets, parse_target


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("104", (104,)),
        ("151-153", (151, 152, 153)),
        ('tabby,"tiger cat"', (281, 282)),
        ("tabby, tiger cat, 285", (281, 282, 285)),
        ("cat", (281, 282, 283, 284, 285)),  # VOC's
        ("Egyptian_cat", (285,)),
        ("3, 2-4", (2, 3, 4)),
    ],
)
def test_targets_of_imagenet(text: str, indices: tuple[int, ...]) -> None:
    assert parse_target(text, imagenet.CLASS_NAMES, 1000) == indices


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("1000", imagenet.CLASS_NAMES, "0 to 999. Received: .1000."),
        ("9-5", None, "Received: none"),
        ("", None, "Received: none"),
        ("dgo", ("cat", "dog"), "'dgo' is unknown. Did you mean 'dog'"),
        ("dog", None, "names of the model are unknown, .* --class dog=INDEX"),
    ],
)
def test_targets_that_do_not_exist(text, names, message) -> None:
    with pytest.raises(UserError, match=message):
        parse_target(text, names, 1000)


def test_a_models_own_names_are_exact() -> None:
    assert parse_target("dog", ("cat", "dog"), 2) == (1,)


def test_classes_of_a_dataset() -> None:
    targets = dataset_targets(["cat", "dog=151-268"], voc.CLASSES, imagenet.CLASS_NAMES, 1000)
    assert targets == {"cat": (281, 282, 283, 284, 285), "dog": tuple(range(151, 269))}
    assert dataset_targets(["dog=11"], voc.CLASSES, None, 20) == {"dog": (11,)}


def test_an_explicit_target_overrides_a_name() -> None:
    for options in (["cat", "cat=7"], ["cat=7", "cat"]):
        assert dataset_targets(options, voc.CLASSES, imagenet.CLASS_NAMES, 1000) == {"cat": (7,)}


def test_a_class_must_occur_in_the_dataset() -> None:
    with pytest.raises(
        UserError, match=r"'dogs' does not occur in .* Did you mean 'dog'.* Its classes: cat, dog"
    ):
        dataset_targets(["dogs"], ("cat", "dog"), None, 10)
