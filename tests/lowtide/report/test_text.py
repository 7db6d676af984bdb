from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.report.text import count, duration, instant, moment, money, percent, period, shorten, visible


@pytest.mark.parametrize(
    "hidden", ["\u202e", "\u2066", "\u200b", "\ufeff", "\x00", "\x1b", "\u2028", "\U000e0041", "\x85"]
)
def test_a_character_that_is_not_seen_is_spelt_out(hidden: str) -> None:
    assert visible(f"a{hidden}b") == f"a[U+{ord(hidden):04X}]b"


def test_text_that_is_seen_is_left_alone() -> None:
    for text in ("naïve Ω", "العربية", "می‌خواهم", "👩‍👩‍👧", "two\nlines\tand a tab", "日本語"):
        assert visible(text) == text


@given(st.text())
def test_visible_text_has_nothing_left_to_spell_out(text: str) -> None:
    assert visible(visible(text)) == visible(text)


def test_numbers_have_separators_and_money_its_unit() -> None:
    assert count(1234567) == "1,234,567"
    assert money(Decimal("1234.5")) == "1,234.50 USD"
    assert money(Decimal("0.00071250")) == "0.000712 USD"
    assert money(Decimal(0), "EUR") == "0.00 EUR"


def test_a_share_is_never_rounded_to_all_or_nothing() -> None:
    assert percent(1, 1_000_000) == "< 0.1 %"
    assert percent(999_999, 1_000_000) == "> 99.9 %"
    assert percent(5, 5) == "100 %"
    assert percent(0, 5) == "0 %"
    assert percent(0, 0) == "—"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (59.7, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (11_560, "3 h 12 min"),
        (90_000, "1 d 1 h"),
        (86_460, "1 d"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_times_are_told_in_utc() -> None:
    local = datetime(2026, 11, 16, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert moment(local) == "15 Nov 2026, 23:30:00 UTC"
    assert instant(local) == "2026-11-15T23:30:00Z"
    monday = datetime(2026, 11, 16, tzinfo=UTC)
    assert period(monday, monday + timedelta(days=7)) == "16 Nov 2026 up to 23 Nov 2026"


def test_a_cut_text_says_so() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
