"""The section of a report that shows where a model looks: mean heat and signs of shortcuts."""

import html
import io
import math
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw

from kgradcam.evaluation.heat_check import HIGH_IS_GOOD, LOW_IS_GOOD, HeatCheck
from kgradcam.evaluation.rows import MIN_IMAGES, Row
from kgradcam.metrics.shortcuts import FixedPlace
from kgradcam.pictures.blending import heat_colors
from kgradcam.pictures.report_cards import data_uri

_MEASURES: Mapping[str, str] = {**HIGH_IS_GOOD, **LOW_IS_GOOD}
_SHOWN = 12  # rows; the others are folded
_SIDE, _SHADES = 96, 64
_OUTLINE = (255, 61, 190)  # that of predicted boxes


def heat_section(found: HeatCheck) -> str:
    """Builds the content of the section, as HTML.

    Args:
        found: The measures of a run. Classes with a shortcut come first, then those with the
            least heat in their boxes. The first 12 are shown, the others folded.
    """
    shortcuts = found.shortcuts()

    def order(row: Row) -> tuple[bool, float]:
        energy = row.measures["energy"]
        return row.class_name not in shortcuts, 2.0 if math.isnan(energy) else energy

    every = found.result.rows
    rows = sorted((row for row in every if row.class_name in found.mean_heat), key=order)
    means = [row for row in every if row.class_name not in found.mean_heat]
    sentences = shortcuts.values() or [_nothing_found(found, len(rows))]
    items = "".join(f"<li>{html.escape(each)}</li>" for each in sentences)
    table = _table([*rows[:_SHOWN], *means], found, "where the heat lies")
    content = f"<ul>{items}</ul>\n{table}"
    if folded := rows[_SHOWN:]:
        content += (
            f"<details><summary>{len(folded)} more classes</summary>\n"
            f"{_table(folded, found, 'where the heat of more classes lies')}</details>"
        )
    terms = "".join(f"<dt>{name}</dt><dd>{text}</dd>\n" for name, text in _MEASURES.items())
    return f"{content}\n<dl>\n{terms}</dl>"


def _nothing_found(found: HeatCheck, classes: int) -> str:
    """The sentence of a run without shortcuts; few pictures share a place by chance."""
    searched = len(found.places)
    if not searched:
        return f"No class has the {MIN_IMAGES} pictures that a search for shortcuts needs."
    rest = f" The other {classes - searched} have too few pictures." if searched < classes else ""
    return f"No shortcut was found in {searched} of {classes} classes.{rest}"


def _table(rows: list[Row], found: HeatCheck, label: str) -> str:
    head = "".join(
        f'<th scope="col">{each}</th>' for each in ("class", "mean heat", "heatmaps", *_MEASURES)
    )
    body = "\n".join(_line(row, found) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n'
        f'<table class="looks"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n'
        "</div>\n"
    )


def _line(row: Row, found: HeatCheck) -> str:
    name = html.escape(row.class_name)
    picture = ""
    if (heat := found.mean_heat.get(row.class_name)) is not None:
        place = found.places[row.class_name] if row.class_name in found.shortcuts() else None
        where = f", with a frame at the {place.where()}" if place else ""
        picture = f'<img src="{_draw(heat, place)}" alt="mean heat of {name}{where}">'
    values = (row.measures[each] for each in _MEASURES)
    cells = "".join(f"<td>{'-' if math.isnan(value) else f'{value:.2f}'}</td>" for value in values)
    return (
        f'<tr><th scope="row">{name}</th><td>{picture}</td><td>{row.counts["heatmaps"]}</td>'
        f"{cells}</tr>"
    )


def _draw(heat: npt.NDArray[np.float64], place: FixedPlace | None) -> str:
    """Mean heat in the colours of heatmaps, and a frame around a fixed place, as a PNG."""
    large = cv2.resize(heat, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    shades = np.round(large / (large.max() or 1) * (_SHADES - 1)).astype(np.uint8)
    image = PIL.Image.fromarray(shades)
    colors = np.round(heat_colors(np.linspace(0, 1, _SHADES))).astype(np.uint8)
    image.putpalette(colors.tobytes() + bytes(_OUTLINE))
    if place is not None:
        left, top, right, bottom = (round(_SIDE * each) for each in place.box)
        PIL.ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), None, _SHADES, 2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return data_uri("image/png", buffer.getvalue())
