"""How much machine time a fleet has left: what is reserved for its open shards, less what no account has claimed."""

from __future__ import annotations

from lowtide_worker.layout import Accounted, Beat, Claimed, Spell
from lowtide_worker.reckoning import seconds_left, unclaimed


def beat(worker, seconds, **more):
    return Beat(worker=worker, state="working", started=1000.0, at=1000.0 + seconds, **more)


def test_all_that_a_worker_does_counts_until_an_account_claims_it():
    one = beat("a", 100.0, boot=60.0, waited=5.0, spells=(Spell(shard="s", seconds=35.0),))
    assert unclaimed([one], Accounted(), rented=True) == 100.0
    account = Accounted(shards=("s",), workers={"a": Claimed(kept=35.0, boot=50.0), "gone": Claimed(lost=999.0)})
    assert unclaimed([one, beat("b", 7.0)], account, rented=True) == 22.0


def test_a_machine_that_was_started_for_its_worker_counts_from_its_boot_on():
    beats = [beat("a", 10.0, instance="i-1", up_before=200.0), beat("b", 10.0, up_before=300.0)]
    assert unclaimed(beats, Accounted(), rented=True) == 220.0
    assert unclaimed(beats, Accounted(), rented=False) == 20.0


def test_what_is_reserved_for_a_shard_is_there_until_its_account_is_made():
    allowed = {"s1": 100.0, "s2": 50.0}
    beats = [beat("a", 70.0)]
    assert seconds_left(allowed, beats, Accounted(), rented=True) == 80.0
    account = Accounted(shards=("s1",), workers={"a": Claimed(kept=70.0)})
    assert seconds_left(allowed, beats, account, rented=True) == 50.0


def test_where_one_open_shard_has_no_limit_nothing_limits_the_fleet():
    allowed = {"s1": 100.0, "s2": None}
    assert seconds_left(allowed, [], Accounted(), rented=True) is None
    assert seconds_left(allowed, [], Accounted(shards=("s2",)), rented=True) == 100.0
    assert seconds_left({}, [], Accounted(), rented=True) is None
