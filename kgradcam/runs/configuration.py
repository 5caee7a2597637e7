"""The options of a run."""

from dataclasses import dataclass, field

from kgradcam.boxes.options import DEFAULT_OPTIONS, DEFAULT_THRESHOLDS, BoxOptions
from kgradcam.errors import UsageError, require_known

ANNOTATED, PREDICTED = "annotated", "predicted"


@dataclass(frozen=True)
class Configuration:
    """The options of a run; `run.json` stores them.

    Attributes:
        dataset: A dataset of tensorflow-datasets, a folder or file, or `"demo"`; see
            `open_dataset`.
        split: Its split. Default: see `open_dataset`. `"held-out"` is the images that the
            training of the model held out.
        classes: The dataset's classes to detect: `NAME`, `NAME=TARGET` or `"all"`; see
            `dataset_targets`.
        model: The classifier; see `load_classifier`.
        weights: Its weights; see `load_classifier`.
        preprocess: Its preprocessing; see `load_classifier`.
        method: One of `METHODS`.
        layer: The layer to explain, or several. Default: see `GradCAM`.
        precision: The precision of the forward pass; see `GradCAM`. `"auto"` is float32 for short
            runs. `run.json` stores the precision that was used.
        jit_compile: Whether to compile with XLA. Default: see `GradCAM`.
        names: The names of the model's outputs; see `load_classifier`.
        output: Which of several outputs holds the classes; see `load_classifier`.
        image_size: Side in pixels of the squares that images are resized to, or `(width, height)`;
            `None` keeps their own size.
        scales: Factors of the image size whose heatmaps are averaged; see `GradCAM`.
        score_scales: Factors at which classes are scored instead; see `GradCAM`.
        refine: Whether to spread heat between similar cells; see `GradCAM`.
        heatmap_dtype: How heatmaps are stored: `"float32"`, exact; or `"uint16"`, rounded in
            half the size.
        batch_size: Maximum number of images of equal shape in a batch.
        thresholds: Heat thresholds in [0, 1]; each gives a table of boxes.
        boxes: How a heatmap becomes boxes.
        presence: The classes to explain on an image: `"annotated"`, the classes annotated on it
            (GT-known localization); or `"predicted"`, the classes that the model predicts
            (detection).
        presence_threshold: Minimum probability for a class to count as predicted.
        limit: Maximum number of images, drawn at random. Default: all.
        seed: The random seed of that draw.
        clip: Whether boxes that leave their image are clipped, instead of skipping the image.
        strict: Whether an unreadable image ends the run, instead of being skipped.
        max_pixels: The limit of pixels that `--max-pixels` gave Pillow, which decides which images
            are skipped. Default: Pillow's own.
        trusted: Whether the model may execute code of its own; see `load_classifier`.
        layout: The layout of the dataset; see `open_dataset`.
        images: The folder of its images; see `open_dataset`.
        class_map: Targets of the dataset's classes by name. With it, `"all"` is the classes that
            it holds.

    Raises:
        UsageError: `presence` or `heatmap_dtype` is unknown, or a threshold is out of range.
    """

    dataset: str = "voc/2007"
    split: str | None = None
    classes: tuple[str, ...] = ("all",)
    model: str = "resnet50"
    weights: str | None = "imagenet"
    preprocess: str | None = None
    method: str = "gradcam"
    layer: str | tuple[str, ...] | None = None
    precision: str = "float32"
    jit_compile: bool | None = None
    names: str | None = None
    output: str | None = None
    image_size: int | tuple[int, ...] | None = 448
    scales: tuple[float, ...] = (1.0,)
    score_scales: tuple[float, ...] = (0.5,)
    refine: bool = True
    heatmap_dtype: str = "float32"
    batch_size: int = 16
    thresholds: tuple[float, ...] = DEFAULT_THRESHOLDS["levels"]
    boxes: BoxOptions = DEFAULT_OPTIONS["levels"]
    presence: str = ANNOTATED
    presence_threshold: float = 0.05
    limit: int | None = None
    seed: int = 0
    clip: bool = False
    strict: bool = False
    max_pixels: int | None = None
    trusted: bool = False
    layout: str | None = None
    images: str | None = None
    class_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (
            ("presence", (ANNOTATED, PREDICTED)),
            ("heatmap_dtype", ("float32", "uint16")),
        ):
            require_known(name, getattr(self, name), known)
        if not self.thresholds or not all(0 <= each <= 1 for each in self.thresholds):
            raise UsageError(
                f"thresholds must be one or more numbers in [0, 1]. Received: {self.thresholds!r}."
            )
