"""The 1000 classes of ImageNet-1k: their names, and the groups that match the VOC classes.

`imagenet_classes.txt` has a line for each synset of ILSVRC-2012 (Russakovsky et al., IJCV 2015), in
the order of the outputs of ImageNet classifiers: the synset's id, a tab, and its WordNet 3.0
lemmas. The lemmas are under the WordNet license, which is in `imagenet_classes.license.txt`.

The groups follow the annotation guidelines of VOC (Everingham et al., IJCV 2010).
"""

from collections import defaultdict
from importlib.resources import files
from itertools import chain

from kgradcam.errors import UserError, did_you_mean

_LINES = (files("kgradcam.models") / "imagenet_classes.txt").read_text("utf-8").splitlines()
_LEMMAS = tuple(tuple(line.split("\t")[1].split(", ")) for line in _LINES)
# The first lemma is the name, but these name two classes each.
_UNIQUE = {
    134: "crane (bird)",
    517: "crane (machine)",
    264: "Cardigan (dog)",
    474: "cardigan (garment)",
    639: "maillot (tank suit)",
}

CLASS_NAMES = tuple(_UNIQUE.get(i, lemmas[0]) for i, lemmas in enumerate(_LEMMAS))
"""The name of each class, in the order of the outputs; no two are equal."""


def _group(*parts: int | range) -> tuple[int, ...]:
    return tuple(chain.from_iterable([part] if isinstance(part, int) else part for part in parts))


VOC_GROUPS = {
    "aeroplane": _group(404, 895),  # airliner, warplane
    "bicycle": _group(444, 671),  # tandem, mountain bike
    "bird": _group(range(7, 25), range(80, 101), range(127, 147)),  # cock to owl, grouse to swan,
    # stork to albatross
    "boat": _group(472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914),  # canoe, catamaran,
    # container ship, fireboat, gondola, lifeboat, liner, pirate ship, schooner, speedboat,
    # trimaran, yawl
    "bottle": _group(
        440, 720, 737, 898, 899, 901, 907
    ),  # beer, pill, pop, water bottle; jugs; wine
    "bus": _group(654, 779, 874),  # minibus, school bus, trolleybus
    "car": _group(436, 468, 511, 609, 627, 656, 661, 717, 751, 817),  # beach wagon, cab,
    # convertible, jeep, limousine, minivan, Model T, pickup, racer, sports car; VOC leaves out
    # emergency vehicles
    "cat": _group(range(281, 286)),  # tabby, tiger, Persian, Siamese, Egyptian
    "chair": _group(423, 559, 765, 857),  # barber, folding, rocking chair, throne
    "cow": _group(345, 346),  # ox, water buffalo
    "diningtable": _group(532),  # dining table
    "dog": _group(range(151, 269)),  # 118 breeds, Chihuahua to Mexican hairless
    "horse": _group(339),  # sorrel
    "motorbike": _group(665, 670),  # moped, motor scooter
    "person": _group(981, 982, 983),  # ballplayer, groom, scuba diver
    "pottedplant": _group(738),  # flowerpot
    "sheep": _group(348, 349),  # ram, bighorn
    "sofa": _group(831),  # studio couch
    "train": _group(466, 547, 705, 820, 829),  # bullet train, electric locomotive, passenger car,
    # steam locomotive, streetcar
    "tvmonitor": _group(664, 782, 851),  # monitor, screen, television
}
"""The ImageNet class indices that match each VOC class.

ImageNet lacks chair, cow, person and pottedplant: of these it has the nearest, with poor heatmaps.
"""

_BY_NAME = {name.lower(): index for index, name in enumerate(CLASS_NAMES)}
_BY_LEMMA: defaultdict[str, list[int]] = defaultdict(list)
for _index, _names in enumerate(_LEMMAS):
    for _name in {name.lower() for name in _names}:
        _BY_LEMMA[_name].append(_index)


def find_class(name: str) -> int:
    """Returns the index of a class.

    Args:
        name: A name in `CLASS_NAMES` or a WordNet lemma, in any case, with spaces or underscores.

    Returns:
        An index from 0 to 999.

    Raises:
        UserError: No class has that name, or several classes share it.

    Example:
        >>> find_class("tiger_cat")
        282
    """
    wanted = name.replace("_", " ").lower()
    if wanted in _BY_NAME:
        return _BY_NAME[wanted]
    indices = _BY_LEMMA.get(wanted, [])
    if len(indices) == 1:
        return indices[0]
    if indices:
        several = ", ".join(f"{index} {CLASS_NAMES[index]}" for index in indices)
        raise UserError(f"class {name!r} is ambiguous: {several}. Give the index.")
    raise UserError(f"class {name!r} is not an ImageNet class.{did_you_mean(name, all_names())}")


def all_names() -> list[str]:
    """Returns all names of the classes, lower case: those of outputs, and WordNet's lemmas."""
    return [*_BY_NAME, *_BY_LEMMA]
