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
        ("9-5", None, "Received: '9-5'"),
        ("0-99999999999", None, "0 to 999. Received: '0-99999999999'"),
        ("9" * 5000, None, "0 to 999. Received: '9{40}'"),
        ("0-" + "9" * 5000, None, "0 to 999. Received: '0-9{38}'"),
        ("²", None, "names of the model are unknown"),
        ("a\rb", None, "must be names and indices, .*new-line"),
        ("a" * 200_000, None, "must be names and indices, .*field limit"),
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


NUMBERED = tuple(sorted(map(str, range(12))))  # "0", "1", "10", "11", "2", ...


@pytest.mark.parametrize(
    ("text", "names", "indices"),
    [
        ("2", NUMBERED, (4,)),
        ("10", NUMBERED, (2,)),
        ("2, 10", NUMBERED, (2, 4)),
        ("0-2", ("cat", "0-2", "dog", "fox"), (1,)),
        ("0-2, 3", ("cat", "0-2", "dog", "fox"), (1, 3)),
        ("dog, big", ("cat", "dog, big"), (1,)),
        ('cat, "dog, big"', ("cat", "dog, big"), (0, 1)),
        (" dog", ("dog", " dog"), (1,)),
        ("size=L", ("size=L", "cat"), (0,)),
        ("tiger", imagenet.CLASS_NAMES, (292,)),
    ],
)
def test_an_exact_name_of_the_model_wins(text: str, names, indices: tuple[int, ...]) -> None:
    assert parse_target(text, names, len(names)) == indices


def test_a_name_of_two_outputs_is_ambiguous() -> None:
    with pytest.raises(UserError, match="'cat' is ambiguous: it is the name of outputs 0, 2"):
        parse_target("cat", ("cat", "dog", "cat"), 3)


def test_an_exact_name_of_the_dataset_wins() -> None:
    names = ("2", "cat", "dog, big", "size", "size=L")
    model = ("size=L", "dog, big", "cat", "2", "size")
    assert dataset_targets(names, names, model, 5) == {
        "2": (3,),
        "cat": (2,),
        "dog, big": (1,),
        "size": (4,),
        "size=L": (0,),
    }
    assert dataset_targets(["size=L=2"], names, model, 5) == {"size=L": (3,)}
    assert dataset_targets(["size=0"], names, model, 5) == {"size": (0,)}
    assert dataset_targets(["size=0,1"], ("size",), None, 5) == {"size": (0, 1)}


def test_a_number_that_names_a_class_is_no_index() -> None:
    with pytest.raises(UserError, match=r"'2' has no index.* --class 2=INDEX"):
        dataset_targets(["2"], ("1", "2"), None, 5)
    with pytest.raises(UserError, match="class '2' is unknown"):
        dataset_targets(["2"], ("1", "2"), ("cat", "dog", "fox"), 3)
    assert dataset_targets(["2=2"], ("1", "2"), None, 5) == {"2": (2,)}


def test_classes_of_a_dataset() -> None:
    targets = dataset_targets(["cat", "dog=151-268"], voc.CLASSES, imagenet.CLASS_NAMES, 1000)
    assert targets == {"cat": (281, 282, 283, 284, 285), "dog": tuple(range(151, 269))}
    assert dataset_targets(["dog=11"], voc.CLASSES, None, 20) == {"dog": (11,)}


def test_an_explicit_target_overrides_a_name() -> None:
    for options in (["cat", "cat=7"], ["cat=7", "cat"]):
        assert dataset_targets(options, voc.CLASSES, imagenet.CLASS_NAMES, 1000) == {"cat": (7,)}


def test_all_unmatched_names_have_their_nearest_names() -> None:
    options, classes = ["tabbi", "horse", "cat", "zzyzx"], ("tabbi", "horse", "cat", "zzyzx")
    with pytest.raises(UserError) as error:
        dataset_targets(options, classes, imagenet.CLASS_NAMES, 1000)
    text = str(error.value)
    assert text.startswith("2 classes of the dataset are no outputs of the model: 'tabbi'. Did you")
    assert "'tabby'" in text
    assert "? 'zzyzx'. Give --class NAME=TARGET for each" in text
    with pytest.raises(UserError, match=r"^class 'zzyzx' is not an ImageNet class\.$"):
        dataset_targets(["zzyzx", "tabbi", "tabbi=281"], classes, imagenet.CLASS_NAMES, 1000)


def test_a_class_must_occur_in_the_dataset() -> None:
    with pytest.raises(
        UserError, match=r"'dogs' does not occur in .* Did you mean 'dog'.* Its classes: cat, dog"
    ):
        dataset_targets(["dogs"], ("cat", "dog"), None, 10)
