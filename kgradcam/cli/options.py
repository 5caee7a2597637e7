"""Option types that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from kgradcam.cli.config_file import read_config
from kgradcam.cli.parsing import Numbers, fractions, pixels

DATASET = "A VOC dataset of tensorflow-datasets, a folder in VOC layout, or demo."
MODEL = (
    "efficientnet-lite0, a network of keras.applications such as resnet50, a .keras file, or a "
    "folder that train has written."
)


WEIGHTS = "imagenet, or a weights file. Files and folders of models bring their own."
PREPROCESS = (
    "Use the preprocessing of this model; none for RGB in 0..255. Default: the model's own."
)


LAYER = (
    "The layer to explain; repeat to fuse several. Default: the last one with space; see "
    "`kgradcam layers`."
)
METHOD = (
    "gradcam, guided-gradcam, cam, gradcam++, xgradcam, hirescam, layercam, counterfactual, "
    "eigencam, scorecam or ablationcam."
)


PRECISION = (
    "Of the forward pass up to the layer: float32, bfloat16, float16, or auto for the reduced one "
    "that this machine has (detect: from 500 images on)."
)


def limit_pixels(count: int | None) -> int | None:
    """Sets the limit for the whole process; Pillow keeps it, and no command needs it again."""
    if count is not None:
        import PIL.Image

        PIL.Image.MAX_IMAGE_PIXELS = count
    return count


Weights = Annotated[str, typer.Option(help=WEIGHTS, metavar="imagenet|FILE")]
Preprocess = Annotated[str | None, typer.Option(help=PREPROCESS, metavar="NAME")]


Layer = Annotated[list[str] | None, typer.Option(help=LAYER, metavar="NAME", show_default=False)]
Method = Annotated[str, typer.Option(help=METHOD, metavar="NAME")]


Precision = Annotated[str, typer.Option(help=PRECISION, metavar="NAME")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        help="Pictures of more are refused. Default: Pillow's limit, 89 million.",
        min=1,
        envvar="KGRADCAM_MAX_PIXELS",
        show_default=False,
        callback=limit_pixels,
    ),
]


ImageSize = Annotated[
    str,
    typer.Option(
        help="native keeps the picture's size; N resizes it to N x N pixels.", metavar="native|N"
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where datasets are kept.", envvar="TFDS_DATA_DIR", show_default=False),
]


TrustModel = Annotated[
    bool,
    typer.Option(
        "--trust-model", help="Let a .keras file run code of its own, as Lambda layers do."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already at --out.")]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")]
Thresholds = Annotated[
    list[Numbers] | None,
    typer.Option(
        *("--threshold", "--thresholds"),
        help="Heat threshold; several: 0.1,0.2 or 0.01:0.60:0.01, or repeat.",
        parser=fractions,
        metavar="NUMBERS",
        show_default=False,
    ),
]


Radii = Annotated[
    list[Numbers] | None,
    typer.Option(
        *("--radius", "--radii"),
        help="Smoothing radius in pixels, likewise. Default: the run's.",
        parser=pixels,
        metavar="NUMBERS",
        show_default=False,
    ),
]
Ious = Annotated[
    list[Numbers] | None,
    typer.Option(
        *("--iou", "--ious"),
        help="IoU at which a box is right, likewise.",
        parser=fractions,
        metavar="NUMBERS",
        show_default="0.3,0.4,0.5",
    ),
]


Protocol = Annotated[
    str, typer.Option(help="Rules of matching and of AP.", metavar="2021|voc2007|voc2010")
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="Options by their long names, in TOML; those given here go first.",
        metavar="FILE.toml",
        is_eager=True,
        callback=read_config,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


AsMarkdown = Annotated[bool, typer.Option("--markdown", help="A Markdown table.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Comma-separated values.")]
ResultFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for evaluation.json, .csv, .md, and charts if there are any.",
        metavar="DIR",
        show_default=False,
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A folder that detect has written.", metavar="RUN")]
