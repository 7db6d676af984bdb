from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from lowtide.report import ShardTime
from lowtide.report.timeline import LANES, timeline
from lowtide.report.views import Columns, Lanes

if TYPE_CHECKING:
    from conftest import Tables


def minutes(*values: float | None) -> list[timedelta | None]:
    return [None if value is None else timedelta(minutes=value) for value in values]


def attempt(tables: Tables, number: int, *values: float | None) -> ShardTime:
    times = [None if value is None else tables.start + value for value in minutes(*values)]
    return ShardTime(number, 1, times[0], times[1], times[2], times[3], 10, "local")


def test_a_lane_for_every_attempt(tables: Tables) -> None:
    figure = timeline(tables.shard_times(12), tables.start)
    assert isinstance(figure, Lanes)
    assert [name.text for name in figure.names][6:8] == ["Shard 7", "Shard 7 · attempt 2"]


def test_phases_are_as_long_as_they_were(tables: Tables) -> None:
    figure = timeline([attempt(tables, 1, 0, 5, 60, 62)], tables.start)
    assert isinstance(figure, Lanes)
    assert [cell.text for cell in figure.table.rows[0][5:]] == ["5 min", "55 min", "2 min", "collected"]
    assert figure.lengths[0].text == "1 h 2 min"


def test_what_is_open_goes_on_until_now(tables: Tables) -> None:
    shards = [attempt(tables, 1, 0, 5, None, None), attempt(tables, 2, 10, None, None, None)]
    figure = timeline(shards, tables.start + timedelta(minutes=45))
    assert isinstance(figure, Lanes)
    assert [cell.text for cell in figure.lengths] == ["45 min …", "35 min …"]
    assert "2 still open" in figure.summary
    assert [row[-1].text for row in figure.table.rows] == ["submitted", "built"]


def test_clocks_that_disagree_make_no_negative_spans(tables: Tables) -> None:
    figure = timeline([attempt(tables, 1, 10, 5, 4, 20)], tables.start)
    assert isinstance(figure, Lanes)
    assert "-" not in figure.lengths[0].text


def test_a_state_that_was_not_seen_took_no_time(tables: Tables) -> None:
    figure = timeline([attempt(tables, 1, None, 5, None, 9)], tables.start)
    assert isinstance(figure, Lanes)
    assert [cell.text for cell in figure.table.rows[0][5:8]] == ["0 s", "0 s", "4 min"]


def test_many_shards_are_counted_over_time(tables: Tables) -> None:
    assert LANES < 500
    figure = timeline(tables.shard_times(500), tables.start)
    assert isinstance(figure, Columns)
    assert "571 attempts at 500 shards" in figure.summary
    assert len(figure.table.rows) == 40
    assert "531 more not shown" in figure.table.note


def test_before_anything_was_built_there_is_no_timeline(tables: Tables) -> None:
    assert timeline([], tables.start) is None
    assert timeline([attempt(tables, 1, None, None, None, None)], tables.start) is None
