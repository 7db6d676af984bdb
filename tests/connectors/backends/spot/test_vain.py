"""When it is tried again where nothing gets done, and what counts for something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.connectors.backends.spot.vain import LONGEST_PAUSE, GivenUp, InRow, Tries, how_of, tries_of
from lowtide.connectors.backends.spot.watching import Written
from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import Terminal

KEYS = ("in_flight", "engine")


def never() -> float:
    raise AssertionError("nobody has to know what o'clock it is")


def at(now: float) -> Callable[[], float]:
    return lambda: now


def test_pauses_double_and_have_an_end() -> None:
    minutes = [Tries(0, times).pause / 60 for times in (0, 1, 2, 3, 4, 5, 6, 7, 8, 5000)]
    assert minutes == [0, 0, 15, 30, 60, 120, 240, 360, 360, 360]


@pytest.mark.parametrize(
    ("tries", "alive", "expected"),
    [
        (Tries(4), 0, None),
        (Tries(4), 3, None),
        (Tries(5), 3, 0),
        (Tries(0, times=1), 0, 1),
        (Tries(0, times=1), 1, 0),
        (Tries(0, times=9), 1, 0),
    ],
)
def test_so_many_more_are_tried(tries: Tries, alive: int, expected: int | None) -> None:
    assert tries.further(5, alive, never, KEYS) == expected


@pytest.mark.parametrize(("failed", "times", "expected"), [(4, 0, False), (5, 0, True), (0, 1, False), (1, 1, True)])
def test_one_failure_is_enough_once_it_was_given_up(failed: int, times: int, expected: bool) -> None:
    assert Tries(failed, times).is_hopeless(5) is expected


def test_within_the_pause_nobody_is_tried_and_after_it_one_is() -> None:
    tries = Tries(0, times=3, at=1_800_000_000.0, why="it broke")
    with pytest.raises(Terminal, match=r"^it broke; .*from 2027-01-15 08:30 UTC on.*in_flight or engine"):
        tries.further(5, 0, at(tries.at + 1799), KEYS)
    assert tries.further(5, 0, at(tries.at + 1800), KEYS) == 1


def test_a_clock_that_was_wrong_keeps_nobody_waiting_for_longer_than_a_pause() -> None:
    tries = Tries(0, times=20, at=1_800_000_000.0)
    assert tries.further(5, 0, at(tries.at - LONGEST_PAUSE), KEYS) == 1


@given(
    st.lists(st.tuples(st.floats(1, 86_400), st.sampled_from(["fails", "writes", "mended"])), max_size=40),
    st.integers(1, 6),
)
def test_tries_that_fail_with_nothing_between_them_are_ever_further_apart(
    steps: list[tuple[float, str]], in_vain: int
) -> None:
    """Whoever looks, and whenever: since the last change, as many fail as may, then one, then one after each pause."""
    now, files, how = 1_800_000_000.0, 0, 0
    given_up: list[tuple[float, GivenUp]] = []
    failed = 0
    since_change: list[float] = []
    for passes, what in steps:
        now += passes
        if what != "fails":
            files, how = files + (what == "writes"), how + (what == "mended")
            # What failed before counts no more: it was submitted when less was written, or its workers were stopped.
            failed, since_change = 0, []
        written = Written(files, 0.0)
        tries = tries_of(failed, given_up, str(how), written)
        if tries.is_hopeless(in_vain):
            given_up.append((now, GivenUp("it broke", str(how), written)))
            failed = 0
            continue
        try:
            further = tries.further(in_vain, 0, at(now), KEYS)
        except Terminal:
            assert len(since_change) > in_vain
            continue
        assert (further is None) == (len(since_change) < in_vain)
        if len(since_change) > in_vain:
            assert now - since_change[-1] >= Tries(0, len(since_change) - in_vain + 1).pause
        since_change.append(now)
        failed += 1


def test_a_change_in_between_begins_it_anew_although_it_was_changed_back() -> None:
    given_up = [(at, GivenUp("why", how, Written(3, 1.0))) for at, how in ((1.0, "a"), (2.0, "a"), (3.0, "b"))]
    assert tries_of(0, given_up, "a", Written(3, 1.0)).times == 0
    assert tries_of(0, given_up, "b", Written(3, 1.0)).times == 1
    assert tries_of(0, given_up[:2], "a", Written(3, 1.0)) == Tries(0, 2, 2.0, "why")
    assert tries_of(2, given_up[:2], "a", Written(4, 1.0)) == Tries(2)


def test_what_workers_are_told_is_told_apart(tmp_path: Path) -> None:
    root = LocalStore(tmp_path, sync="none")
    found = [how_of(root, "f")]
    for data in (b"1", b"2"):
        root.write("spot/f/fleet.json", data)
        found.append(how_of(root, "f"))
    found += [how_of(root, "f", "a", "bc"), how_of(root, "f", "ab", "c")]
    assert len(set(found)) == 5
    root.write("spot/f/fleet.json", b"2")
    assert how_of(root, "f") == found[2]


@pytest.mark.parametrize(
    ("in_row", "passes", "expected"),
    [
        (InRow(4, 1.0), 0, None),
        (InRow(5, 1.0), 899, 0),
        (InRow(5, 1.0), 900, 1),
        (InRow(5, 1.0), -900, 1),
        (InRow(6, 1.0), 900, 0),
        (InRow(6, 1.0), 1800, 1),
        (InRow(99, 1.0), LONGEST_PAUSE, 1),
        (InRow(5, 1.0, is_tried=True), 900, 0),
        (InRow(4, 1.0, is_tried=True), 900, None),
    ],
)
def test_beside_workers_that_live_one_is_tried_after_each_pause(
    in_row: InRow, passes: float, expected: int | None
) -> None:
    assert in_row.further(5, in_row.last + passes) == expected
