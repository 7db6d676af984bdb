"""Each second of each worker is charged exactly once, whatever the order in which shards end, and workers die."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.connectors.backends.spot.accounts import (
    NOTHING,
    Account,
    Hold,
    next_account,
    unkept,
)
from lowtide_worker.layout import Beat, Claimed, Spell
from lowtide_worker.reckoning import LONGEST_BOOT

STARTED = 1_800_000_000.0
BEAT = 5.0
SHARDS = tuple(f"s{number:05d}-a1" for number in range(1, 6))


def beat(
    worker: str = "w1",
    *,
    boot: float = 0.0,
    waited: float = 0.0,
    spells: Sequence[Spell] = (),
    missing: float = 0.0,
    ended: bool = False,
    **more: object,
) -> Beat:
    """A beat whose parts add up to the whole, but for what is `missing`."""
    seconds = boot + waited + sum(spell.seconds for spell in spells) + missing
    told = {"started": STARTED, "at": STARTED + seconds, "state": "ended" if ended else "working"} | more
    return Beat(
        worker=worker,
        boot=boot,
        waited=waited,
        spells=tuple(spells),
        exit_code=0 if ended else None,
        **told,  # type: ignore[arg-type]
    )


def seconds(account: Account) -> Counter[str]:
    found: Counter[str] = Counter()
    for charge in account.charges:
        found[charge.waste] += charge.seconds
    return found


def charged(accounts: Sequence[Account]) -> Counter[tuple[str, str]]:
    """Seconds by worker and waste."""
    found: Counter[tuple[str, str]] = Counter()
    for account in accounts:
        for charge in account.charges:
            assert charge.seconds > 0
            found[charge.worker, charge.waste] += charge.seconds
    return found


@dataclass(frozen=True)
class Life:
    """What a worker did: boots, waits (None), and spells at shards, by their numbers. It dies `died` seconds in, if so.

    Where it `told` of its end, that is known to the second; else as of its last beat.
    """

    name: str
    boot: float
    parts: Sequence[tuple[int | None, float]]
    died: float | None
    told: bool

    @property
    def length(self) -> float:
        whole = self.boot + sum(length for _, length in self.parts)
        return whole if self.died is None else min(whole, self.died)

    def seen(self, at: float) -> Beat:
        """Its last beat at that many seconds after its start."""
        over = at >= self.length
        known = self.length if over and self.told else min(at, self.length) // BEAT * BEAT
        boot, left = min(self.boot, known), max(0.0, known - self.boot)
        waited, spells = 0.0, dict[int, float]()
        for shard, length in self.parts:
            here = min(length, left)
            left -= here
            if shard is None:
                waited += here
            elif here:
                spells[shard] = spells.get(shard, 0.0) + here
        return Beat(
            worker=self.name,
            state="ended" if over and self.told else "working",
            started=STARTED,
            at=STARTED + known,
            boot=boot,
            waited=waited,
            spells=tuple(Spell(shard=SHARDS[shard], seconds=length) for shard, length in spells.items()),
            exit_code=0 if over and self.told else None,
        )


LENGTHS = st.floats(0, 500, allow_nan=False)
LIVES = st.builds(
    Life,
    name=st.just(""),
    boot=LENGTHS,
    parts=st.lists(st.tuples(st.one_of(st.none(), st.integers(0, len(SHARDS) - 1)), LENGTHS), max_size=8),
    died=st.one_of(st.none(), st.floats(0, 2000, allow_nan=False)),
    told=st.booleans(),
)


@settings(deadline=None)
@given(
    lives=st.lists(LIVES, min_size=1, max_size=4),
    order=st.permutations(SHARDS),
    views=st.lists(st.floats(0, 5000, allow_nan=False), min_size=len(SHARDS) - 1, max_size=len(SHARDS) - 1),
)
def test_each_second_is_claimed_once_in_whatever_order(
    lives: list[Life], order: Sequence[str], views: list[float]
) -> None:
    """Accounts are made with old views and new ones, as when several processes race; the last one sees all."""
    lives = [Life(f"w{number}", life.boot, life.parts, life.died, life.told) for number, life in enumerate(lives)]
    account, made = NOTHING, []
    for shard, view in zip(order, [*views, math.inf], strict=True):
        before = account
        beats = [life.seen(view) for life in lives]
        gone = {life.name for life in lives if view > life.length + 45}
        account = next_account(shard, beats, gone, account)
        assert account.shards == (*before.shards, shard)
        for name, claimed in account.workers.items():
            was = before.workers.get(name, Claimed())
            assert min(claimed.kept - was.kept, claimed.lost - was.lost) >= 0
            assert min(claimed.boot - was.boot, claimed.idle - was.idle) >= 0
        made.append(account)
    found = charged(made)
    for life in lives:
        last, claimed = life.seen(math.inf), account.workers[life.name]
        assert claimed.boot == last.boot
        assert claimed.idle == last.waited
        assert claimed.seconds == pytest.approx(last.at - STARTED, abs=1e-5)
        assert found[life.name, "boot"] == math.floor(claimed.boot + 0.5)
        assert found[life.name, "idle"] == math.floor(claimed.idle + 0.5)
        assert found[life.name, "preempted"] == math.floor(claimed.lost + 0.5)
        assert found[life.name, ""] == math.ceil(claimed.kept - 1e-6)


def test_a_shard_bears_its_own_time_and_what_nobody_has_claimed() -> None:
    first, second = (Spell(shard=SHARDS[0], seconds=100.0), Spell(shard=SHARDS[1], seconds=50.0))
    account = next_account(SHARDS[0], [beat(boot=30.0, waited=5.0, spells=[first, second])], ())
    assert seconds(account) == {"boot": 30, "idle": 5, "": 100}
    again = next_account(SHARDS[1], [beat(boot=30.0, waited=9.0, spells=[first, second])], (), account)
    assert seconds(again) == {"idle": 4, "": 50}


def test_what_came_late_of_an_ended_shard_goes_to_the_next_account() -> None:
    account = next_account(SHARDS[0], [beat(spells=[Spell(shard=SHARDS[0], seconds=100.0)])], ())
    ghost = beat(spells=[Spell(shard=SHARDS[0], seconds=140.0, lost=40.0, duplicates=9)])
    assert seconds(next_account(SHARDS[1], [ghost], (), account)) == {"preempted": 40}


def test_what_a_dead_worker_did_behind_its_last_part_is_lost() -> None:
    dead = beat("dead", boot=20.0, spells=[Spell(shard=SHARDS[0], seconds=60.0)])
    heir = beat("heir", spells=[Spell(shard=SHARDS[0], seconds=30.0)])
    account = next_account(SHARDS[0], [dead, heir], {"dead"}, unkept={"dead": 12.0, "heir": 30.0})
    assert seconds(account) == {"boot": 20, "": 48 + 30, "preempted": 12}


def test_a_worker_that_has_told_of_its_end_has_lost_what_it_says() -> None:
    stopped = beat(spells=[Spell(shard=SHARDS[0], seconds=60.0, lost=3.0)], ended=True)
    account = next_account(SHARDS[0], [stopped], {"w1"}, unkept={"w1": 50.0})
    assert seconds(account) == {"": 57, "preempted": 3}


def test_what_a_dead_worker_has_not_told_is_lost() -> None:
    dead = beat(boot=20.0, spells=[Spell(shard=SHARDS[0], seconds=60.0)], missing=4.0)
    assert seconds(next_account(SHARDS[0], [dead], ())) == {"boot": 20, "": 60}
    assert seconds(next_account(SHARDS[0], [dead], {"w1"})) == {"boot": 20, "": 60, "preempted": 4}


def test_a_worker_that_comes_back_is_not_charged_twice() -> None:
    """Taken for dead at a shard that has not ended, it goes on: the second account claims what the first did not."""
    paused = beat(boot=10.0, spells=[Spell(shard=SHARDS[1], seconds=50.0)], missing=7.0)
    account = next_account(SHARDS[0], [paused], {"w1"})
    assert seconds(account) == {"boot": 10, "preempted": 7}
    back = beat(boot=10.0, spells=[Spell(shard=SHARDS[1], seconds=80.0)])
    assert seconds(next_account(SHARDS[1], [back], (), account)) == {"": 73}


def test_a_machine_is_paid_from_its_boot_on_and_once() -> None:
    """Two workers one after the other on one machine: the second begins 30 s after the last sign of the first."""
    on = {"instance": "i-1", "instance_type": "g6.xlarge", "zone": "eu-west-1a", "region": "eu-west-1"}
    first = beat("a", boot=60.0, up_before=90.0, **on)
    later = {"started": first.at + 30.0, "at": first.at + 70.0}
    second = beat("b", boot=40.0, up_before=180.0, **on, **later)
    account = next_account(SHARDS[0], [first, second], ())
    assert seconds(account) == {"boot": 90 + 60 + 30 + 40}
    [charge, other] = account.charges
    assert (charge.at, other.at) == (STARTED - 90.0, first.at)
    assert (charge.instance_type, charge.zone, charge.region) == ("g6.xlarge", "eu-west-1a", "eu-west-1")


def test_of_workers_whose_machine_nobody_names_no_machine_is_paid_twice() -> None:
    """Four of them on one machine that was up for ten minutes: whose boot it was, nobody knows."""
    beats = [beat(f"w{number}", boot=20.0, up_before=600.0) for number in range(4)]
    assert seconds(next_account(SHARDS[0], beats, ())) == {"boot": 80}


@settings(deadline=None)
@given(
    lives=st.lists(LIVES, min_size=1, max_size=4),
    order=st.permutations(SHARDS),
    room=st.floats(0, 3000, allow_nan=False),
)
def test_no_account_but_the_last_is_more_than_it_may_be_and_nothing_is_left_over(
    lives: list[Life], order: Sequence[str], room: float
) -> None:
    lives = [Life(f"w{number}", life.boot, life.parts, life.died, life.told) for number, life in enumerate(lives)]
    beats, gone = [life.seen(math.inf) for life in lives], {life.name for life in lives}
    account = NOTHING
    for shard in order[:-1]:
        account = next_account(shard, beats, gone, account, most=room)
        assert sum(charge.seconds for charge in account.charges) <= room
    account = next_account(order[-1], beats, gone, account)
    for life in lives:
        assert account.workers[life.name].seconds == pytest.approx(life.seen(math.inf).at - STARTED, abs=1e-5)


def test_what_an_account_has_no_room_for_goes_to_the_next() -> None:
    spells = [Spell(shard=SHARDS[0], seconds=50.0)]
    first = next_account(SHARDS[0], [beat(boot=300.0, waited=20.0, spells=spells)], (), most=200.0)
    assert first.workers["w1"].kept == 50.0, "the shard's own time goes first"
    assert seconds(first) == {"": 50, "boot": 150}
    again = next_account(SHARDS[1], [beat(boot=300.0, waited=20.0, spells=spells)], (), first)
    assert sum((seconds(first) + seconds(again)).values()) == 370


def test_many_short_workers_leave_a_shard_no_less_room() -> None:
    """A second of boot of each of 300 workers that died: the shard's own time is charged, and boots up to the brim."""
    spells = [Spell(shard=SHARDS[0], seconds=500.0)]
    beats = [beat("long", spells=spells), *(beat(f"w{number:03d}", boot=1.0) for number in range(300))]
    first = next_account(SHARDS[0], beats, (), most=600.5)
    assert seconds(first) == {"": 500, "boot": 100}
    assert seconds(next_account(SHARDS[1], beats, (), first)) == {"boot": 200}


def test_what_was_claimed_stays_claimed_when_there_is_no_room() -> None:
    first = next_account(SHARDS[0], [beat(boot=10.25)], ())
    again = next_account(SHARDS[1], [beat(boot=11.0)], (), first, most=0.5)
    assert (again.charges, again.workers["w1"].boot) == ((), 10.25)
    assert seconds(next_account(SHARDS[2], [beat(boot=11.0)], (), again)) == {"boot": 1}


# Eighths of a second add up exactly, so that what is rounded is the same in whatever order.
EIGHTHS = st.one_of(st.integers(0, 16), st.integers(0, 4000)).map(lambda number: number / 8)
CROWDS = st.lists(
    st.tuples(
        st.builds(
            Life,
            name=st.just(""),
            boot=EIGHTHS,
            parts=st.lists(st.tuples(st.one_of(st.none(), st.integers(0, len(SHARDS) - 1)), EIGHTHS), max_size=4),
            died=st.one_of(st.none(), EIGHTHS),
            told=st.booleans(),
        ),
        st.integers(1, 100),
    ),
    min_size=1,
    max_size=3,
).map(
    lambda crowds: [
        Life(f"w{kind}-{number:03d}", life.boot, life.parts, life.died, life.told)
        for kind, (life, count) in enumerate(crowds)
        for number in range(count)
    ]
)


def assert_little_is_cut(before: Account, cut: Account, whole: Account) -> None:
    """Nothing shrinks, and besides the seconds that are not charged yet no more than half of one is left to others."""
    later = charged([whole])
    later.subtract(charged([cut]))
    for name, claimed in cut.workers.items():
        was, full = before.workers.get(name, Claimed()), whole.workers[name]
        for kind, waste in (("kept", ""), ("lost", "preempted"), ("boot", "boot"), ("idle", "idle")):
            assert getattr(was, kind) <= getattr(claimed, kind)
            assert 0 <= getattr(full, kind) - getattr(claimed, kind) < later[name, waste] + 0.5


@settings(deadline=None, max_examples=60)
@given(
    lives=CROWDS,
    order=st.permutations(SHARDS),
    rooms=st.lists(
        st.one_of(st.floats(0, 400, allow_nan=False), st.floats(0, 50_000, allow_nan=False)),
        min_size=len(SHARDS) - 1,
        max_size=len(SHARDS) - 1,
    ),
)
def test_an_account_fills_its_room_to_the_second_and_what_is_most_useful_goes_first(
    lives: list[Life], order: Sequence[str], rooms: list[float]
) -> None:
    """With up to 300 workers: it is worth whichever is less, what may be charged or the room's whole seconds."""
    beats, gone = [life.seen(math.inf) for life in lives], {life.name for life in lives}
    account, made, uncut = NOTHING, [], [NOTHING]
    for shard, room in zip(order, [*rooms, math.inf], strict=True):
        before, whole = account, next_account(shard, beats, gone, account)
        account = next_account(shard, beats, gone, account, most=room)
        may, found, left = seconds(whole), seconds(account), room
        for waste in ("", "preempted", "boot", "idle"):
            assert found[waste] == (may[waste] if may[waste] <= left else math.floor(left))
            left -= found[waste]
        assert sum(found.values()) <= room
        assert_little_is_cut(before, account, whole)
        made.append(account)
        uncut.append(next_account(shard, beats, gone, uncut[-1]))
    assert account.workers == uncut[-1].workers
    assert charged(made) == charged(uncut)
    due: Counter[tuple[str, str]] = Counter()
    for name, claimed in account.workers.items():
        due[name, ""] = math.ceil(claimed.kept)
        due[name, "preempted"] = math.floor(claimed.lost + 0.5)
        due[name, "boot"] = math.floor(claimed.boot + 0.5)
        due[name, "idle"] = math.floor(claimed.idle + 0.5)
    assert charged(made) == due


def test_a_machine_that_others_have_used_is_paid_from_the_worker_on() -> None:
    account = next_account(SHARDS[0], [beat(boot=60.0, up_before=LONGEST_BOOT + 1, instance="i-1")], ())
    assert seconds(account) == {"boot": 60}


def test_an_account_survives_being_written_down() -> None:
    account = next_account(SHARDS[0], [beat(boot=0.1 + 0.2, spells=[Spell(shard=SHARDS[0], seconds=1 / 3)])], ())
    assert msgspec.json.decode(msgspec.json.encode(account), type=Account) == account


def test_a_shard_has_one_account() -> None:
    with pytest.raises(ValueError, match="has an account"):
        next_account(SHARDS[0], [], (), next_account(SHARDS[0], [], ()))


def test_parts_tell_until_when_a_workers_answers_are_kept() -> None:
    holds = [Hold(worker="a", at=100.0), Hold(worker="b", at=200.0), Hold(worker="c", at=300.0)]
    found = unkept(holds, [110.0, 150.0, 205.0], {"a": 170.0, "b": 230.0, "c": 320.0, "d": 999.0})
    assert found == {"a": 20.0, "b": 25.0, "c": 20.0}
