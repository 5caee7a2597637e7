"""What several commands take: option types, and how their values are read."""

import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from kgradcam.errors import UsageError, UserError, did_you_mean

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


class Numbers(list[float]):
    """What an option of numbers takes: one, several by commas, or START:STOP:STEP."""


def numbers(text: str | Numbers) -> Numbers:
    """Reads what an option of numbers takes."""
    if isinstance(text, Numbers):
        return text
    found = Numbers()
    for item in text.split(","):
        try:
            start, *rest = map(Decimal, item.split(":"))
            stop, step = rest or (start, Decimal(1))
        except (ArithmeticError, ValueError):
            raise typer.BadParameter(f"{item!r} is no number and no START:STOP:STEP.") from None
        if not (start.is_finite() and stop.is_finite() and step > 0 and start <= stop):
            raise typer.BadParameter(f"{item!r} is no range upwards.")
        count = int((stop - start) / step) + 1
        if count > 10_000:
            raise typer.BadParameter(f"{item!r} is more than 10,000 numbers.")
        # Decimal, so that 0.1:0.3:0.1 ends in 0.3 and not in 0.30000000000000004.
        found += [float(start + i * step) for i in range(count)]
    return found


def fractions(text: str | Numbers) -> Numbers:
    """Reads numbers in [0, 1]."""
    found = numbers(text)
    if not all(0 <= each <= 1 for each in found):
        raise typer.BadParameter(f"{text} is not in 0 to 1.")
    return found


def pixels(text: str | Numbers) -> Numbers:
    """Reads whole numbers from 0 up."""
    found = numbers(text)
    if not all(each >= 0 and each == int(each) for each in found):
        raise typer.BadParameter(f"{text} is not a whole number of pixels.")
    return found


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
    str, typer.Option(help="How AP is defined.", metavar="seed|voc2007|voc2010|coco|wsol")
]
ApProtocol = Annotated[str, typer.Option(help="How AP is defined.", metavar="seed|voc2007|voc2010")]


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the values of a TOML file the defaults of a command; what is given goes first."""
    if path is None:
        return None
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"No file {path}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable TOML: {error}") from error
    options: Any = context.command.params
    names = {
        option.removeprefix("--"): each.name
        for each in options
        for option in each.opts
        if option.startswith("--") and each.name not in ("config", "dry_run", "help")
    }
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("_", "-")
        if name not in names:
            raise UsageError(
                f"{path}: {key!r} is no option of {context.command.name}."
                f"{did_you_mean(name, names)} Options: {', '.join(sorted(names))}."
            )
        if isinstance(value, dict):
            raise UsageError(f"{path}: {key!r} must be a value or a list. Received: a table.")
        # As the command line has them, so that one parser reads both.
        repeats = any(each.name == names[name] and each.multiple for each in options)
        texts = [*map(str, value)] if isinstance(value, list) else [str(value)]
        defaults[names[name]] = texts if repeats else ",".join(texts)
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def given_options(context: typer.Context) -> list[str]:
    """The options that somebody has typed, written into a file, or set in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source and source.name != "DEFAULT"]


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
RunFolder = Annotated[Path, typer.Argument(help="A folder that detect has written.", metavar="RUN")]


def output_form(**wanted: bool) -> str:
    """Which form of output is asked for; a table, if none."""
    given = [name for name, is_wanted in wanted.items() if is_wanted]
    if len(given) > 1:
        raise UsageError(f"Give one of --{' and --'.join(given)}.")
    return given[0] if given else "table"


def refuse(options: dict[str, Any], asked: str) -> None:
    """What would have no effect is a mistake."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(f"{asked} knows nothing of {' or '.join(given)}.")


def protocol_rules(
    protocol: str,
    difficult: str | None = None,
    ap: str | None = None,
    inclusive: bool | None = None,
    match: str | None = None,
) -> Any:
    """Returns a protocol by name, with what other options change of it; a slip is a usage error."""
    from kgradcam.metrics.average_precision import PROTOCOLS, find_protocol

    names = [*PROTOCOLS, "coco", "wsol"]
    if protocol not in names:
        raise UsageError(
            f"--protocol {protocol!r} is none of {', '.join(names)}.{did_you_mean(protocol, names)}"
        )
    for name, value, options in (
        ("--difficult", difficult, ("ignore", "count")),
        ("--ap", ap, ("11", "area", "101")),
        ("--match", match, ("devkit", "coco")),
    ):
        if value is not None and value not in options:
            raise UsageError(f"{name} must be {' or '.join(options)}. Received: {value!r}.")
    return find_protocol(protocol).changed(
        difficult=difficult, ap=ap, inclusive=inclusive, match=match
    )


def box_rules(boxes: str, radius: int | None = None, score: str | None = None) -> Any:
    """Returns the box options of `--boxes`, with what other options change of them."""
    from dataclasses import replace

    from kgradcam.boxes.levels import BOX_RULES

    if boxes not in BOX_RULES:
        raise UsageError(
            f"--boxes must be {' or '.join(BOX_RULES)}. Received: {boxes!r}."
            f"{did_you_mean(boxes, BOX_RULES)}"
        )
    rules = BOX_RULES[boxes]
    return replace(
        rules,
        smooth_radius=rules.smooth_radius if radius is None else radius,
        score=score or rules.score,
    )


def joined(lists: Sequence[Numbers] | None) -> list[float]:
    """All numbers of a repeated option, each once, in the order given."""
    return list(dict.fromkeys(each for given in lists or () for each in given))


def whole_numbers(lists: Sequence[Numbers] | None) -> list[int] | None:
    """All numbers of a repeated option as integers, or `None` if there are none."""
    return [int(each) for each in joined(lists)] or None


def layer_paths(names: Sequence[str] | None) -> str | tuple[str, ...] | None:
    """Reads `--layer`: none, one, or several to be fused."""
    if not names:
        return None
    return names[0] if len(names) == 1 else tuple(names)


def side_length(text: str) -> int | None:
    """Reads `--image-size`."""
    if text == "native":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--image-size must be native or a number of pixels. Received: {text!r}.")
