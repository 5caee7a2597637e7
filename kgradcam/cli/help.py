"""The help of a command: its options in sections by purpose, in two columns."""

import re
from collections.abc import Iterator
from typing import Any

import typer
from typing_extensions import override

from kgradcam.cli.parsing import LARGEST_NUMBER

_SECTIONS = {
    "Input": "dataset split validation_split test_split clip data_dir max_pixels limit seed strict "
    "layout images listed labelled devkit year",
    "Model": "model weights preprocess scale_pixels imports names output trust_model image_size "
    "size",
    # Options of train name these themselves, since some have the name of an option of detect.
    "Network": "",
    "Training": "",
    "Random variations of images": "",
    "Classes": "classes class_map top against presence presence_threshold",
    "Heatmaps": "method compare layer every precision jit_compile fast scale score_scale refine "
    "heatmap_dtype batch_size",
    "Boxes": "boxes threshold radius score rows box_options max_boxes min_score min_precision "
    "refiner rung",
    "Detections of other programs": "detections ground_truth",
    "Picture": "count picture_size draw_boxes overlay_only colormap",
    "Page": "host port",
    "Measures": "iou protocol metric baselines bootstrap ignore_difficult metrics "
    "fail_under fail_over per_class baseline tolerance",
    "Many processes": "plan shards shard workers runner",
    "Output": "out junit form sort prefix heatmaps resume force dry_run config as_json as_csv "
    "as_markdown as_latex quiet",
}
_PLACEHOLDERS = {"int": "N", "float": "NUMBER", "str": "TEXT", "list[str]": "TEXT", "path": "PATH"}
_TYPE = re.compile(r" <(int|float|str|list\[str\]|path)( range)?>")
_SECTION_OF = {name: section for section, names in _SECTIONS.items() for name in names.split()}


class Command(typer.core.TyperCommand):
    """A command whose help has an example, and a section for each purpose of options.

    Its numbers are finite and fit int32.
    """

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest: list[str] = super().parse_args(ctx, args)
        parameters: list[Any] = self.get_params(ctx)
        for parameter in parameters:
            for number in _numbers_in(ctx.params.get(parameter.name)):
                if not -LARGEST_NUMBER <= number <= LARGEST_NUMBER:  # a NaN fails too
                    raise typer.BadParameter(
                        f"{number!s:.80} is not a number up to {LARGEST_NUMBER:,}.", ctx, parameter
                    )
        return rest

    @override
    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        text, _, example = (self.help or "").partition("\n\nExample:\n")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)
        if example:
            with formatter.section("Example"):
                # On one line, so that it can be pasted.
                formatter.write("".join(f"  {line.strip()}\n" for line in example.splitlines()))

    @override
    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        sections |= {section: [] for section in (*_SECTIONS, "Options")}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usage, text = record
                if parameter.param_type_name == "argument":
                    sections["Arguments"].append((re.sub(" <.*>", "", usage), text))
                    continue
                usage = _TYPE.sub(lambda found: f" {_PLACEHOLDERS[found[1]]}", usage)
                own = getattr(parameter, "rich_help_panel", None)
                section = own or _SECTION_OF.get(parameter.name or "", "Options")
                sections[section].append((usage, text))
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def _numbers_in(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers_in(each)
