"""The names of ImageNet classes, and the groups that match VOC classes."""

import re
from importlib.resources import files

import pytest

from kgradcam.data import voc
from kgradcam.errors import UserError
from kgradcam.models import imagenet


def test_class_names_are_unique() -> None:
    assert len(imagenet.CLASS_NAMES) == 1000
    assert len({name.lower() for name in imagenet.CLASS_NAMES}) == 1000


def test_the_synsets_are_in_their_order() -> None:
    """ImageNet classifiers have their outputs in the order of the synset ids."""
    lines = (
        (files("kgradcam.models") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    )
    wnids = [line.split("\t")[0] for line in lines]
    assert wnids == sorted(set(wnids))
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)
    assert (wnids[0], wnids[281], wnids[999]) == ("n01440764", "n02123045", "n15075141")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tench", 0),
        ("tabby", 281),
        ("tiger_cat", 282),
        ("EGYPTIAN CAT", 285),
        ("golden retriever", 207),
        ("Cardigan (dog)", 264),
        ("CARDIGAN (garment)", 474),
        ("wallaby", 104),
        ("brush kangaroo", 104),
        ("crane (machine)", 517),
        ("tank suit", 639),
        ("espresso", 967),
        ("toilet tissue", 999),
        ("partridge", 86),  # also a lemma of the ruffed grouse, but names come first
    ],
)
def test_classes_are_found_by_any_of_their_names(name: str, index: int) -> None:
    assert imagenet.find_class(name) == index


def test_every_unique_name_finds_its_class() -> None:
    for index, name in enumerate(imagenet.CLASS_NAMES):
        assert imagenet.find_class(name) == index


def test_ambiguous_and_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"is ambiguous: 134 crane \(bird\), 517 crane \(machine\)"):
        imagenet.find_class("crane")
    with pytest.raises(UserError, match="'tabbby' is not an ImageNet class. Did you mean 'tabby'"):
        imagenet.find_class("tabbby")


def test_the_groups_are_the_voc_classes_and_disjoint() -> None:
    assert tuple(imagenet.VOC_GROUPS) == voc.CLASSES
    indices = [index for group in imagenet.VOC_GROUPS.values() for index in group]
    assert len(indices) == len(set(indices))
    assert min(indices) >= 0
    assert max(indices) < 1000


@pytest.mark.parametrize(
    ("voc_class", "names"),
    [
        ("aeroplane", {"airliner", "warplane"}),
        ("cat", {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}),
        ("cow", {"ox", "water buffalo"}),
        ("bus", {"minibus", "school bus", "trolleybus"}),
        ("diningtable", {"dining table"}),
        ("horse", {"sorrel"}),
        ("motorbike", {"moped", "motor scooter"}),
        ("person", {"ballplayer", "groom", "scuba diver"}),
        ("pottedplant", {"pot"}),
        ("sheep", {"ram", "bighorn"}),
        ("sofa", {"studio couch"}),
        ("chair", {"barber chair", "folding chair", "rocking chair", "throne"}),
        ("bicycle", {"bicycle-built-for-two", "mountain bike"}),
        ("tvmonitor", {"monitor", "screen", "television"}),
        (
            "train",
            {
                "bullet train",
                "electric locomotive",
                "passenger car",
                "steam locomotive",
                "streetcar",
            },
        ),
        (
            "bottle",
            {
                "beer bottle",
                "pill bottle",
                "pop bottle",
                "water bottle",
                "water jug",
                "whiskey jug",
                "wine bottle",
            },
        ),
        (
            "boat",
            {
                "canoe",
                "catamaran",
                "container ship",
                "fireboat",
                "gondola",
                "lifeboat",
                "liner",
                "pirate",
                "schooner",
                "speedboat",
                "trimaran",
                "yawl",
            },
        ),
        (
            "car",
            {
                "beach wagon",
                "cab",
                "convertible",
                "jeep",
                "limousine",
                "minivan",
                "Model T",
                "pickup",
                "racer",
                "sports car",
            },
        ),
    ],
)
def test_the_members_of_each_group(voc_class: str, names: set[str]) -> None:
    group = imagenet.VOC_GROUPS[voc_class]
    assert {imagenet.CLASS_NAMES[index] for index in group} == names


def test_the_large_groups_by_their_first_and_last_members() -> None:
    def names(voc_class: str) -> list[str]:
        return [imagenet.CLASS_NAMES[index] for index in imagenet.VOC_GROUPS[voc_class]]

    dogs, birds = names("dog"), names("bird")
    assert (len(dogs), dogs[0], dogs[-1]) == (118, "Chihuahua", "Mexican hairless")
    assert (len(birds), birds[0], birds[-1]) == (59, "cock", "albatross")
    assert {"great grey owl", "black swan", "white stork"} < set(birds)
    assert {"tusker", "European fire salamander", "isopod"}.isdisjoint(birds)
