"""Windows tile time, their names are safe in paths, and each file and row is in exactly one of a kind."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.errors import ConfigError
from lowtide.records import FileInfo
from lowtide.windows import Window, file_filter, parse_window, path_times, row_filter

MOMENTS = st.datetimes(datetime(2, 1, 8), datetime(9998, 12, 24), timezones=st.just(UTC))  # noqa: DTZ001
FORMS = ("%G-W%V", "%Y-%m-%d", "%Y-%m", "%Y", "%Y-%m-%dT%H")
SAFE = re.compile(r"[A-Za-z0-9-]+")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def name(moment: datetime, form: str) -> str:
    # %Y and %G are not padded below the year 1000.
    year = moment.isocalendar().year if "%G" in form else moment.year
    return moment.strftime(form.replace("%G", f"{year:04d}").replace("%Y", f"{year:04d}"))


def file(path: str, modified: datetime | None = None, uri: str = "") -> FileInfo:
    moment = modified or utc(2026, 11, 20)
    return FileInfo(path=path, uri=uri or f"s3://bucket/{path}", size=1, etag="e", modified=moment)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026", utc(2026, 1, 1), utc(2027, 1, 1)),
        ("2026-11", utc(2026, 11, 1), utc(2026, 12, 1)),
        ("2026-12", utc(2026, 12, 1), utc(2027, 1, 1)),
        ("2028-02", utc(2028, 2, 1), utc(2028, 3, 1)),
        ("2026-W47", utc(2026, 11, 16), utc(2026, 11, 23)),
        ("2026-W01", utc(2025, 12, 29), utc(2026, 1, 5)),
        ("2026-W53", utc(2026, 12, 28), utc(2027, 1, 4)),
        ("2026-11-20", utc(2026, 11, 20), utc(2026, 11, 21)),
        ("2026-11-20T00", utc(2026, 11, 20), utc(2026, 11, 20, 1)),
        ("2026-11-20T23", utc(2026, 11, 20, 23), utc(2026, 11, 21)),
        ("2026-11-01..2026-11-15", utc(2026, 11, 1), utc(2026, 11, 15)),
        ("2026-W47..2026-12", utc(2026, 11, 16), utc(2026, 12, 1)),
        (" 2026-11-01 .. 2026-11-20t05 ", utc(2026, 11, 1), utc(2026, 11, 20, 5)),
    ],
)
def test_a_window_starts_and_ends_where_its_name_says(text: str, start: datetime, end: datetime) -> None:
    window = parse_window(text)
    assert (window.start, window.end) == (start, end)
    assert window.contains(start)
    assert not window.contains(end)
    assert window.contains(end - timedelta(microseconds=1))


def test_all_has_no_ends() -> None:
    for text in ("all", " ALL "):
        window = parse_window(text)
        assert window == Window("all", None, None)
        assert window.contains(utc(1, 1, 1))


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-13", "2026-00", "2026-02-30", "2026-W54", "2025-W53", "2026-W00", "2026-11-20T24",
        "2026-1-1", "2026/11/20", "2026-11-20T05:00", "0000", "9999", "all..2026", "2026..", "..2026", "2026..2025",
        "2026-11-01..2026-11-01", "2026..2027..2028", "2026-W47-1",
        "\u0662\u0660\u0662\u0666", "2026-11-20\n2026", "x" * 500,
    ],
)  # fmt: skip
def test_what_is_no_window_is_told_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_window(text)
    message = str(raised.value)
    assert message.startswith("window: found '")
    assert "2026-W47" in message or "needs an A that starts before B" in message
    assert len(message) < 300


@given(MOMENTS, st.sampled_from(FORMS))
def test_every_moment_is_in_exactly_one_window_of_each_length(moment: datetime, form: str) -> None:
    window = parse_window(name(moment, form))
    assert window.start is not None
    assert window.end is not None
    assert window.contains(moment)
    before = parse_window(name(window.start - timedelta(microseconds=1), form))
    after = parse_window(name(window.end, form))
    assert before.end == window.start
    assert after.start == window.end
    assert not before.contains(moment)
    assert not after.contains(moment)


@given(MOMENTS, MOMENTS, st.sampled_from(FORMS), st.sampled_from(FORMS), st.sampled_from(["..", "--"]))
def test_a_name_is_safe_in_paths_and_names_the_same_window_again(
    first: datetime, last: datetime, form: str, other: str, sign: str
) -> None:
    window = parse_window(name(first, form))
    assert SAFE.fullmatch(window.name)
    assert parse_window(window.name) == window
    text = f"{name(first, form)}{sign}{name(last, other)}"
    if window.start < parse_window(name(last, other)).start:  # type: ignore[operator]
        between = parse_window(text)
        assert SAFE.fullmatch(between.name)
        assert parse_window(between.name) == between
    else:
        with pytest.raises(ConfigError, match="starts before"):
            parse_window(text)


@given(st.text(max_size=30))
def test_no_text_does_anything_but_parse_or_say_why_not(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_window(text).name


def test_a_moment_in_another_zone_counts_by_its_instant() -> None:
    window = parse_window("2026-11-20")
    ahead = timezone(timedelta(hours=9))
    assert window.contains(datetime(2026, 11, 21, 8, 59, tzinfo=ahead))
    assert not window.contains(datetime(2026, 11, 21, 9, 0, tzinfo=ahead))
    assert window.contains(datetime(2026, 11, 20, 23, 59))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("pattern", "path", "window"),
    [
        ("{year}/{month}/{day}/", "logs/2026/11/20/a.txt", "2026-11-20"),
        ("{year}/{month}/{day}/", "logs/2026/1/2/a.txt", "2026-01-02"),
        ("dt={year}-{month}-{day}", "t/dt=2026-11-20/a.parquet", "2026-11-20"),
        ("year={year}/month={month}", "t/year=2026/month=7/a", "2026-07"),
        ("{year}{month}{day}", "in/report-20261120.pdf", "2026-11-20"),
        ("{year}{month}{day}T{hour}", "in/20261120T05.log", "2026-11-20T05"),
        ("{year}-W{week}", "weekly/2026-W47.csv", "2026-W47"),
        ("{year}", "archive/2026/x", "2026"),
        ("{year}/{year}{month}{day}", "2026/20261120.txt", "2026-11-20"),
        # Digits that go on are another number, and what is in no calendar is passed over.
        ("{year}{month}{day}", "in/1202611200-20261120.pdf", "2026-11-20"),
        ("{year}/{month}/{day}/", "v/9999/99/99/2026/11/20/a", "2026-11-20"),
        ("{year}-{month}", "a.2026-11.txt", "2026-11"),
        ("v1.{year}", "v1.2026", "2026"),
    ],
)
def test_a_path_stands_for_a_time(pattern: str, path: str, window: str) -> None:
    assert path_times(pattern)(path) == parse_window(window)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{year}/{month}/{day}/", "logs/a.txt"),
        ("{year}/{month}/{day}/", "logs/2026/13/20/a"),
        ("{year}{month}{day}", "in/120261120.pdf"),
        ("{year}{month}{day}", "in/202611201.pdf"),
        ("{year}{month}{day}", "in/2026112.pdf"),
        ("{year}/{year}{month}{day}", "2025/20261120.txt"),
        ("{year}.{month}", "2026-11"),
        ("{year}", "120261"),
    ],
)
def test_a_path_without_a_real_date_stands_for_none(pattern: str, path: str) -> None:
    assert path_times(pattern)(path) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "needs {year}"),
        ("logs/", "needs {year}"),
        ("{month}/{day}", "needs {year}"),
        ("{year}/{day}", "needs {year}"),
        ("{year}/{week}/{day}", "needs {year}"),
        ("{year}/{minute}", "knows {year}, {month}, {day}, {hour}, {week}"),
        ("{year}/{}", "knows {year}"),
    ],
)
def test_a_pattern_that_tells_no_time_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        path_times(pattern)


@given(MOMENTS, st.text(alphabet="abc/-_=. ", max_size=12), st.text(alphabet="abc/-_=. ", max_size=12))
def test_a_dated_path_is_in_the_window_of_its_day_and_no_other(moment: datetime, before: str, after: str) -> None:
    path = f"{before}{name(moment, '%Y-%m-%d')}{after}"
    for by, form in (("path:{year}-{month}-{day}", "%Y-%m-%d"), ("path:{year}-{month}-{day}", "%G-W%V")):
        window = parse_window(name(moment, form))
        assert window.end is not None
        assert file_filter(by, window)(file(path))
        assert not file_filter(by, parse_window(name(window.end, form)))(file(path))


def test_files_are_told_apart_by_the_time_they_were_changed() -> None:
    belongs = file_filter("modified", parse_window("2026-W47"))
    assert belongs(file("a", utc(2026, 11, 16)))
    assert not belongs(file("a", utc(2026, 11, 23)))
    assert not belongs(file("a", utc(2026, 11, 15, 23, 59, 59)))


def test_a_file_belongs_where_the_range_of_its_path_starts() -> None:
    """A month's file belongs to the week in which the month starts, and to no other."""
    monthly = file("2026/11/a.csv")
    by = "path:{year}/{month}/"
    assert [week for week in range(40, 54) if file_filter(by, parse_window(f"2026-W{week}"))(monthly)] == [44]


def test_the_address_counts_where_the_store_begins_below_the_dated_folder() -> None:
    belongs = file_filter("path:{year}/{month}/", parse_window("2026-11"))
    assert belongs(file("a.txt", uri="s3://bucket/2026/11/a.txt"))
    assert not belongs(file("2026/10/a.txt", uri="s3://bucket/2026/11/2026/10/a.txt"))


def test_a_file_without_a_date_is_in_all_and_nowhere_else() -> None:
    by = "path:{year}/{month}/"
    assert file_filter(by, parse_window("all"))(file("a.txt"))
    assert not file_filter(by, parse_window("2026"))(file("a.txt"))


def test_a_field_leaves_files_alone() -> None:
    assert file_filter("field:at", parse_window("2026"))(file("a", utc(1999, 1, 1)))


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-20", "20261120", "2026-11-20T00:00:00", "2026-11-20 23:59:59.999999", "2026-11-20T12:00:00Z",
        "2026-11-21T08:59:00+09:00", "2026-11-19T20:00:00-05:00", "1795132800", "1795132800000", "1795132800.5",
        "1.7951328e9", "1795219199.999", " 2026-11-20 ", "2026-W47-5",
    ],
)  # fmt: skip
def test_a_row_is_read_by_its_field_in_every_usual_spelling(value: str) -> None:
    found = row_filter("field:created at", parse_window("2026-11-20"))
    assert found is not None
    field, belongs = found
    assert field == "created at"
    assert belongs(value)


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-21", "2026-11-20T00:30:00+01:00", "1795219200", "1795132799", None, "", "soon", "2026", "20/11/2026",
        "0", "-1", "12345", "99999999999999999999", "nan", "inf", "1e999", "20261399", "\ud800",
        "\u0662\u0660\u0662\u0666-11-20",
        "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    ],
)  # fmt: skip
def test_a_row_of_another_time_or_of_none_that_can_be_read_does_not_belong(value: str | None) -> None:
    found = row_filter("field:at", parse_window("2026-11-20"))
    assert found is not None
    assert not found[1](value)


@given(MOMENTS.filter(lambda moment: datetime(1974, 1, 1, tzinfo=UTC) < moment < datetime(5000, 1, 1, tzinfo=UTC)))
def test_a_row_is_in_the_same_window_however_its_time_is_spelled(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    seconds = int(moment.timestamp())
    spellings = [moment.isoformat(), moment.replace(tzinfo=None).isoformat(), str(seconds), str(seconds * 1000)]
    for hour in (0, 1):
        found = row_filter("field:at", parse_window(name(moment + timedelta(hours=hour), "%Y-%m-%dT%H")))
        assert found is not None
        assert {found[1](spelling) for spelling in spellings} == {hour == 0}


@given(st.text(max_size=40))
def test_no_value_of_a_row_raises(value: str) -> None:
    found = row_filter("field:at", parse_window("2026"))
    assert found is not None
    assert found[1](value) in {True, False}


def test_rows_are_not_filtered_where_every_row_belongs() -> None:
    assert row_filter("field:at", parse_window("all")) is None
    assert row_filter("modified", parse_window("2026")) is None
    assert row_filter("path:{year}/", parse_window("2026")) is None


@pytest.mark.parametrize("window_by", ["", "created", "field:", "field: ", "path:", "modified:x", "Modified"])
def test_what_a_window_cannot_go_by_is_refused(window_by: str) -> None:
    for look in (file_filter, row_filter):
        with pytest.raises(ConfigError, match=r"window_by: found .*expected modified, field:<name>, or path:<pattern>"):
            look(window_by, parse_window("2026"))
