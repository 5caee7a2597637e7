"""How a heatmap becomes boxes: the options, and their defaults for each set of rules."""

from dataclasses import dataclass

from kgradcam.errors import UsageError, require_known

MAX_RADIUS = 10_000
"""The largest smoothing radius in pixels."""


@dataclass(frozen=True)
class BoxOptions:
    """The choices of `find_boxes`.

    Attributes:
        rules: `"levels"`: boxes at many heat levels, scored, overlaps removed.
            `"single-threshold"`: one box for each region above one fixed threshold, as in the 2021
            scripts; see `single_threshold_boxes`.
        smooth_radius: Width in pixels of the box filter that smooths the heatmap; 0 for none.
        score: The confidence of a box. `"expected-iou"`, for `"levels"` only and their default: the
            tenth root of the class probability, times the IoU to expect with an object, by
            constants that were fitted to annotated boxes; others of them move the sides of boxes.
            See `docs/localization.md`. `"density"`, the default of `"single-threshold"`: the fifth
            root of the probability, times the share of the map's heat inside the box, times the
            mean heat there. `"heat"`: the probability times that share. `"constant"`: 1. With `""`
            the field becomes the default of `rules`.
        iou_threshold: For `"levels"`: of two boxes with a higher IoU, non-maximum suppression
            drops the one with the lower score. With `"expected-iou"` that box loses score instead,
            the more the higher the IoU, and goes beyond twice the threshold.
        min_relative_score: For `"levels"`: boxes that score below this fraction of the best score
            are dropped.

    Raises:
        UsageError: `rules` or `score` is unknown, they do not fit each other, or a number is out of
            range.
    """

    rules: str = "levels"
    smooth_radius: int = 0
    score: str = ""
    iou_threshold: float = 0.35
    min_relative_score: float = 0.05

    def __post_init__(self) -> None:
        # The one place where the default of the score depends on the rules; a frozen dataclass has
        # no other way to set a field.
        default = "density" if self.rules == "single-threshold" else "expected-iou"
        object.__setattr__(self, "score", self.score or default)
        for name, value, known in (
            ("boxes", self.rules, ("levels", "single-threshold")),
            ("score", self.score, ("expected-iou", "density", "heat", "constant")),
        ):
            require_known(name, value, known)
        if self.score == "expected-iou" and self.rules != "levels":
            raise UsageError(
                "score='expected-iou' compares boxes of many heat levels: it needs boxes='levels'. "
                f"Received: boxes={self.rules!r}. Try score='density'."
            )
        if not 0 <= self.smooth_radius <= MAX_RADIUS:
            raise UsageError(
                f"smooth_radius must be 0 to {MAX_RADIUS} pixels. Received: {self.smooth_radius!r}."
            )
        for name in ("iou_threshold", "min_relative_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be in [0, 1]. Received: {getattr(self, name)!r}.")


DEFAULT_OPTIONS = {
    "levels": BoxOptions(),
    "single-threshold": BoxOptions(rules="single-threshold", smooth_radius=20, score="heat"),
}
"""The default options of each set of rules."""

DEFAULT_THRESHOLDS = {"levels": (0.35,), "single-threshold": (0.01, 0.02, 0.06)}
"""The default heat thresholds of each set of rules."""
