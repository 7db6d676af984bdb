"""The marks of a chart as inline SVG, drawn by pygal. Titles, ticks and names around them are HTML, so that they wrap,
can be selected, keep their size on a phone and take the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import pygal
from markupsafe import Markup
from pygal.view import Box

from lowtide.report.text import visible

_WIDTH, _HEIGHT = 1_000, 400
_STEPS = (1, 2, 2.5, 5, 10)
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a stacked chart: a length for each bar. `role` is a CSS class of the style sheet, "" draws nothing.

    `titles` are what a pointer resting on a bar reads.
    """

    role: str
    name: str
    values: Sequence[float]
    titles: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from 0 to `top` in `divisions` equal parts."""

    top: float
    divisions: int

    @property
    def ticks(self) -> list[float]:
        """The values at both ends and at every division."""
        return [self.top * tick / self.divisions for tick in range(self.divisions + 1)]


def scale(largest: float, *, whole: bool = False) -> Scale:
    """An axis with round numbers that holds the largest value; for `whole` numbers its steps are at least 1."""
    if largest <= 0:
        return Scale(1.0, 1)
    rough = max(largest / 4, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * 0.999)
    if whole:
        step = math.ceil(step)
    divisions = max(1, math.ceil(largest / step - 1e-9))
    return Scale(step * divisions, divisions)


def time_scale(seconds: float) -> Scale:
    """An axis in seconds whose steps are those of a clock."""
    rough = max(seconds, 1e-3) / 5
    step = next((size for size in _TIME_STEPS if size >= rough), math.ceil(rough / 86_400) * 86_400)
    divisions = max(1, math.ceil(seconds / step - 1e-9))
    return Scale(float(step * divisions), divisions)


def stacked(series: Sequence[Series], top: float, *, horizontal: bool, gap: float, label: str) -> Markup:
    """Stacked bars on an axis from 0 to `top`, as an SVG that fills whatever box it is put in.

    The first value is the top bar, or the left column. `gap` is the share of a bar's room that stays empty, `label` is
    what a screen reader says. Bars of no length are left out. The markup holds rectangles and their titles only.
    """
    bars = max(len(one.values) for one in series)
    draw = pygal.HorizontalStackedBar if horizontal else pygal.StackedBar
    chart = draw(
        width=_WIDTH,
        height=_HEIGHT,
        margin=0,
        spacing=0,
        show_legend=False,
        show_x_labels=False,
        show_y_labels=False,
        range=(0, top),
        no_prefix=True,
        js=[],
    )
    chart._series_margin = gap / 2
    for one in series:
        titles = one.titles or ("",) * bars
        values = [
            {"value": min(value, top), "tooltip": visible(title)}
            for value, title in zip(one.values, titles, strict=True)
        ]
        # pygal counts horizontal bars from below.
        chart.add(one.role, values[::-1] if horizontal else values)
    return _rebuilt(chart.render_tree(), [one.role for one in series], label, reverse=horizontal)


def _rebuilt(tree: ElementTree.Element, roles: Sequence[str], label: str, *, reverse: bool) -> Markup:
    """Only the bars: pygal's own document brings scripts, styles, ids and a margin around the plot."""
    margin = Box.margin / (1 + 2 * Box.margin)
    crop = (_WIDTH * margin, _HEIGHT * margin, _WIDTH * (1 - 2 * margin), _HEIGHT * (1 - 2 * margin))
    picture = ElementTree.Element(
        "svg",
        {
            "class": "marks",
            "viewBox": " ".join(f"{number:.2f}" for number in crop),
            "preserveAspectRatio": "none",
            "role": "img",
            "aria-label": visible(label),
        },
    )
    plot = next(group for group in tree.iter("g") if group.get("class") == "plot")
    groups = [group for group in plot.iter("g") if group.get("class", "").startswith("series ")]
    for role, group in zip(roles, groups, strict=True):
        if role:
            into = ElementTree.SubElement(picture, "g", {"class": f"s-{role}"})
            bars = [bar for bar in group.iter("g") if bar.get("class") == "bar"]
            for bar in bars[::-1] if reverse else bars:
                _copy_bar(bar, into)
    return Markup(ElementTree.tostring(picture, encoding="unicode"))  # noqa: S704 - built here, escaped by ElementTree


def _copy_bar(bar: ElementTree.Element, into: ElementTree.Element) -> None:
    rectangle, title = bar.find("rect"), bar.find("title")
    if rectangle is None:
        return
    shape = {name: rectangle.get(name, "0") for name in ("x", "y", "width", "height")}
    if float(shape["width"]) <= 0 or float(shape["height"]) <= 0:
        return
    copy = ElementTree.SubElement(into, "rect", {name: f"{float(value):.2f}" for name, value in shape.items()})
    if title is not None and title.text:
        ElementTree.SubElement(copy, "title").text = title.text
