from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.report.charts import Series, scale, stacked, time_scale

HOSTILE = "</title></svg><script>alert(1)</script>"
SVG_TAGS = {"svg", "g", "rect", "title"}


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)  # noqa: S314 - our own markup


def shares(markup: str, role: str, along: str) -> list[float]:
    """The lengths of one series' bars, as shares of the chart's room."""
    picture = parsed(markup)
    _, _, width, height = (float(number) for number in picture.attrib["viewBox"].split())
    room = {"width": width, "height": height}[along]
    return [float(bar.attrib[along]) / room for bar in picture.findall(f"g[@class='s-{role}']/rect")]


def test_bars_are_as_long_as_their_values() -> None:
    series = [Series("ok", "ok", [10, 50]), Series("error", "error", [40, 0])]
    markup = stacked(series, 100, horizontal=True, gap=0.2, label="chart")
    assert shares(markup, "ok", "width") == pytest.approx([0.1, 0.5], abs=1e-3)
    assert shares(markup, "error", "width") == pytest.approx([0.4], abs=1e-3)
    markup = stacked(series, 100, horizontal=False, gap=0.2, label="chart")
    assert shares(markup, "ok", "height") == pytest.approx([0.1, 0.5], abs=1e-3)


def test_the_first_value_is_the_top_bar() -> None:
    markup = stacked([Series("ok", "", [1, 2], ["first", "second"])], 2, horizontal=True, gap=0.2, label="chart")
    bars = parsed(markup).findall("g/rect")
    by_height = sorted(bars, key=lambda bar: float(bar.attrib["y"]))
    assert [bar.findtext("title") for bar in by_height] == ["first", "second"]


def test_one_bar_alone_fills_the_room_from_end_to_end() -> None:
    picture = parsed(stacked([Series("ok", "", [7])], 7, horizontal=True, gap=0, label="chart"))
    left, _, width, _ = (float(number) for number in picture.attrib["viewBox"].split())
    bar = picture.find("g/rect")
    assert bar is not None
    assert float(bar.attrib["x"]) == pytest.approx(left, abs=0.02)
    assert float(bar.attrib["width"]) == pytest.approx(width, abs=0.02)


def test_a_chart_is_rectangles_and_titles_and_nothing_else() -> None:
    markup = stacked([Series("ok", HOSTILE, [1, 2], [HOSTILE] * 2)], 2, horizontal=False, gap=0, label=HOSTILE)
    picture = parsed(markup)
    assert {node.tag for node in picture.iter()} == SVG_TAGS
    assert {node.text for node in picture.iter("title")} == {HOSTILE}
    assert not {"style", "id", "href", "onload"} & {name for node in picture.iter() for name in node.attrib}


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_an_axis_holds_its_largest_value_and_has_few_ticks(largest: float) -> None:
    axis = scale(largest)
    assert axis.top >= largest * 0.999999
    assert axis.top <= largest * 2.6
    assert 1 <= axis.divisions <= 5


@given(st.floats(min_value=0, max_value=60 * 86_400.0))
def test_a_time_axis_holds_its_largest_value_and_has_few_ticks(seconds: float) -> None:
    axis = time_scale(seconds)
    assert axis.top >= seconds * 0.999999
    assert 1 <= axis.divisions <= 6


def test_an_axis_of_counts_has_whole_ticks() -> None:
    for largest in (1, 2, 3, 7, 498, 12_345):
        assert all(tick == int(tick) for tick in scale(largest, whole=True).ticks)
