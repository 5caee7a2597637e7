"""Option types that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli import completion
from kgradcam.cli.config_file import read_config
from kgradcam.cli.parsing import Numbers, fractions, pixels

DATASET = (
    "A folder or file: VOC, COCO JSON, YOLO, a folder for each class, or plain pictures. Or a "
    "dataset of tensorflow-datasets, or demo."
)
MODEL = (
    "efficientnet-lite0, a network of keras.applications such as resnet50, a preset of KerasHub "
    "such as hub:resnet_50_imagenet, a .keras or .h5 file, or a model folder of train."
)
WEIGHTS = "imagenet, or a weights file. A model file or folder has its own weights."
PREPROCESS = (
    "Preprocess as this model does; none passes pixels in 0..255, and 0..1 or -1..1 scale them. "
    "Default: the model's own, as far as its file shows it."
)
LAYER = (
    "Layer to explain; repeat to fuse several. Default: the last layer with spatial dimensions; "
    "`kgradcam layers` lists them."
)
METHOD = f"Method of the heatmap: {', '.join(completion.METHODS[:-1])} or {completion.METHODS[-1]}."
PRECISION = (
    "Precision of the forward pass up to the layer: float32, bfloat16, float16, or auto. auto "
    "reduces it where the machine supports that (detect: from 500 images on)."
)


def limit_pixels(count: int | None) -> int | None:
    """Sets Pillow's limit on image pixels for the whole process."""
    if count is not None:
        import PIL.Image

        PIL.Image.MAX_IMAGE_PIXELS = count
    return count


Weights = Annotated[str, typer.Option(help=WEIGHTS, metavar="imagenet|FILE")]
Preprocess = Annotated[str | None, typer.Option(help=PREPROCESS, metavar="NAME")]
ScalePixels = Annotated[
    bool,
    typer.Option(
        "--scale-pixels", help="For a model trained on pixels / 255: as --preprocess 0..1."
    ),
]
Names = Annotated[
    str | None,
    typer.Option(
        help="Names of the model's outputs: imagenet, or a file of a name a line, or JSON.",
        metavar="imagenet|FILE",
        show_default=False,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        help="Which output of the model holds the classes, if it has several.",
        metavar="NAME|INDEX",
        show_default=False,
    ),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Import a module that defines layers of the model file; repeat for more.",
        metavar="MODULE",
        show_default=False,
    ),
]
Layer = Annotated[
    list[str] | None,
    typer.Option(help=LAYER, metavar="NAME", show_default=False, autocompletion=completion.layers),
]
Model = Annotated[str, typer.Option(help=MODEL, autocompletion=completion.models)]
ModelArgument = Annotated[str, typer.Argument(help=MODEL, autocompletion=completion.models)]
Method = Annotated[
    str, typer.Option(help=METHOD, metavar="NAME", autocompletion=completion.methods)
]
Precision = Annotated[str, typer.Option(help=PRECISION, metavar="NAME")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        help="Refuse images with more pixels. Default: Pillow's limit, 89 million.",
        min=1,
        envvar="KGRADCAM_MAX_PIXELS",
        show_default=False,
        callback=limit_pixels,
    ),
]
Colormap = Annotated[
    str, typer.Option(help="Colours of heat: a colormap of matplotlib.", metavar="NAME")
]
ImageSize = Annotated[
    str,
    typer.Option(
        help="own resizes to the size that the model was trained at, or, if that is unknown, to at "
        "most 448 pixels. native keeps the image's size.",
        metavar="own|native|N|WxH",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="Layout of --dataset. Default: recognized by its files.",
        metavar="voc|coco|yolo|classes|images|list",
        show_default=False,
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        help="Folder of the images of COCO JSON or of a list. Default: found beside it.",
        metavar="DIR",
        show_default=False,
    ),
]
Clip = Annotated[
    bool,
    typer.Option(
        "--clip", help="Clip boxes that leave their image, instead of skipping the image."
    ),
]
MovedDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="The dataset of the run, if it was moved.",
        metavar="FOLDER",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of datasets.", envvar="TFDS_DATA_DIR", show_default=False),
]
TrustModel = Annotated[
    bool,
    typer.Option(
        "--trust-model", help="Allow the model file to execute code, as Lambda layers do."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite --out if it exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result, no progress.")]
Thresholds = Annotated[
    list[Numbers] | None,
    typer.Option(
        *("--threshold", "--thresholds"),
        help="Heat threshold in 0..1. Several: 0.1,0.2, or a range 0.01:0.60:0.01, or repeat.",
        parser=fractions,
        metavar="NUMBERS",
        show_default=False,
    ),
]
Radii = Annotated[
    list[Numbers] | None,
    typer.Option(
        *("--radius", "--radii"),
        help="Smoothing radius in pixels. Several: 0,20, or a range. Default: the run's.",
        parser=pixels,
        metavar="NUMBERS",
        show_default=False,
    ),
]
Ious = Annotated[
    list[Numbers] | None,
    typer.Option(
        *("--iou", "--ious"),
        help="IoU from which a box is correct. Several: 0.3,0.5, or a range.",
        parser=fractions,
        metavar="NUMBERS",
        show_default="0.3,0.4,0.5",
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        help="Rules of matching and of AP.",
        metavar="2021|voc2007|voc2010",
        autocompletion=completion.protocols,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of options by their long names; options given here take precedence.",
        metavar="FILE.toml",
        is_eager=True,
        callback=read_config,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="A Markdown table.")]
AsLatex = Annotated[bool, typer.Option("--latex", help="A LaTeX tabular.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values.")]
ResultFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for evaluation.json, .csv, .md, and charts if there are any.",
        metavar="DIR",
        show_default=False,
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder of detect.", metavar="RUN")]
OptionalRun = Annotated[
    Path | None,
    typer.Argument(help="A run folder of detect.", metavar="RUN", show_default=False),
]
GivenDetections = Annotated[
    Path | None,
    typer.Option(
        "--detections",
        help="Instead of RUN: detections as COCO JSON, or a file comp4_det_*.txt of the VOC "
        "devkit, or a folder of them.",
    ),
]
GivenTruth = Annotated[
    Path | None,
    typer.Option(
        "--ground-truth",
        help="Ground truth, COCO JSON or a folder in VOC layout: of --detections; or of RUN, "
        "matched by file name.",
    ),
]
CorrectedTruth = Annotated[
    Path | None,
    typer.Option(
        "--ground-truth",
        help="Corrected boxes: COCO JSON or a folder in VOC layout; images match by file name.",
        metavar="FILE",
        show_default=False,
    ),
]
GivenSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Split of a folder given as --ground-truth. Default: that in the names of the "
        "detections, else test, else all.",
    ),
]
Refiner = Annotated[
    Path | None,
    typer.Option(
        help="Refine the boxes by this file of train-refiner; see also `kgradcam refine`.",
        metavar="FILE.json",
        show_default=False,
    ),
]
Rows = Annotated[
    str,
    typer.Option(
        help="Boxes of each image and class that count: all, the last, the largest, or the most "
        "confident.",
        metavar="all|last|largest|top",
    ),
]
Boxes = Annotated[
    str | None,
    typer.Option(
        help="Rules that turn a heatmap into boxes.",
        metavar="levels|single-threshold",
        show_default="those of the run",
    ),
]
TunedOptions = Annotated[
    Path | None,
    typer.Option("--box-options", help="Box options that tune has written.", metavar="FILE"),
]
