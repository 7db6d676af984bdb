"""How much of a fleet's machine time nobody has charged yet: a pure function of what lies in its folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from lowtide_worker.layout import Accounted, Beat, Claimed

LONGEST_BOOT = 900.0
"""Seconds that a machine may have been up before its first worker: one that was up for longer did something else."""


def machine_time_before(beats: Iterable[Beat]) -> dict[str, float]:
    """By worker, for how long its machine had been up for it before it began, so that no machine's time counts twice.

    A machine that an earlier worker of the fleet has used was up for the next one since that one's last beat. Where
    nobody says which machine it was, it may be that of any other worker, and nothing counts.
    """
    found: dict[str, float] = {}
    used_until: dict[str, float] = {}
    for beat in sorted(beats, key=lambda one: (one.started, one.worker)):
        before = beat.up_before or 0.0
        if beat.instance in used_until:
            before = min(before, max(0.0, beat.started - used_until[beat.instance]))
        found[beat.worker] = before if beat.instance and 0.0 < before <= LONGEST_BOOT else 0.0
        if beat.instance:
            used_until[beat.instance] = max(used_until.get(beat.instance, 0.0), beat.at)
    return found


def unclaimed(beats: Collection[Beat], account: Accounted, *, rented: bool) -> float:
    """Seconds of the fleet's workers that no account has claimed so far."""
    before = machine_time_before(beats) if rented else {}
    return sum(
        max(0.0, beat.at - beat.started + before.get(beat.worker, 0.0) - _claimed(account.workers, beat).seconds)
        for beat in beats
    )


def seconds_left(
    allowed: Mapping[str, float | None], beats: Collection[Beat], account: Accounted, *, rented: bool
) -> float | None:
    """Seconds that a fleet's workers may still take together, boots and waits included; None where nothing limits it.

    `allowed` is what the tasks of its shards say. What is reserved for a shard is there until its account is made.
    """
    open_ = [seconds for shard, seconds in allowed.items() if shard not in account.shards]
    limited = [seconds for seconds in open_ if seconds is not None]
    if len(limited) < len(open_) or not open_:
        return None
    return sum(limited) - unclaimed(beats, account, rented=rented)


def _claimed(workers: Mapping[str, Claimed], beat: Beat) -> Claimed:
    return workers.get(beat.worker, _NOTHING)


_NOTHING = Claimed()
