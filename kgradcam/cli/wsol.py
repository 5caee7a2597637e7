"""`kgradcam wsol`: measures weakly supervised localization."""

from kgradcam.cli import options
from kgradcam.cli.box_source import BoxSource
from kgradcam.cli.groups import ResultOptions


def wsol(
    source: BoxSource,
    *,
    max_pixels: options.MaxPixels = None,
    results: ResultOptions,
    quiet: options.Quiet = False,
) -> None:
    """Measure CorLoc, MaxBoxAcc, pointing game and PxAP.

    These are the measures of weakly supervised object localization.

    Example:
        kgradcam wsol runs/cat
    """
    from kgradcam.evaluation.wsol_and_coco import wsol_of_boxes

    results.print(wsol_of_boxes(source.read(quiet), quiet), quiet)
