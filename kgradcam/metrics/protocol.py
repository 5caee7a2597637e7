"""The rules in which evaluations of average precision differ, as named protocols."""

from dataclasses import dataclass
from typing import Literal

from kgradcam.errors import UsageError, require_known

AveragePrecision = Literal["area", "11"]

_COMMANDS = ("coco", "wsol")


@dataclass(frozen=True)
class Protocol:
    """The rules of matching and of average precision.

    Attributes:
        name: Its name.
        ap: The definition of average precision. `"area"`: the area under the precision envelope
            (VOC from 2010 on). `"11"`: the mean of the envelope at recalls 0, 0.1, ..., 1
            (VOC2007).
        difficult: `"ignore"`: difficult objects do not count, and neither do detections of them.
            `"count"`: difficult objects count like all others.
        inclusive: Whether an IoU equal to the threshold is enough, or must exceed it.
        mixed_pixels: Whether to reproduce an off-by-one of the 2021 scripts: 1-based inclusive
            ground truth against 0-based half-open detections, with 1 added to all sides. Otherwise
            both are half-open, which on whole pixels equals the devkit's inclusive boxes.
    """

    name: str
    ap: AveragePrecision
    difficult: Literal["ignore", "count"] = "ignore"
    inclusive: bool = True
    mixed_pixels: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("2021", ap="area", difficult="count", inclusive=False, mixed_pixels=True),
        Protocol("voc2007", ap="11"),
        Protocol("voc2010", ap="area"),
    )
}
"""`2021` reproduces the published table of the 2021 scripts; `voc2007` and `voc2010` are VOC's."""


def find_protocol(name: str) -> Protocol:
    """Returns a protocol by name.

    Raises:
        UsageError: `name` is not a key of `PROTOCOLS`.
    """
    if name in _COMMANDS:
        raise UsageError(
            f"protocol={name!r} has other measures than AP at some IoU: use `kgradcam {name}`, or "
            "evaluation.wsol_and_coco in Python."
        )
    require_known("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
