"""What machine time a shard is charged for: a pure function of what workers say of themselves, and of earlier accounts.

When a shard ends, an account is made. It claims the time that went into the shard, and all time of the fleet's workers
that was lost or not used and that no earlier account has claimed. Accounts follow one another, each carrying what has
been claimed so far: so each second of each worker is claimed once, in whatever order shards end and workers die.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from lowtide_worker.layout import Accounted, Beat, Claimed
from lowtide_worker.reckoning import machine_time_before

Waste = Literal["", "preempted", "boot", "idle"]

Kind = Literal["kept", "lost", "boot", "idle"]

# In the order in which a worker's time is charged.
_WASTE: Mapping[Kind, Waste] = {"boot": "boot", "kept": "", "lost": "preempted", "idle": "idle"}

# What goes first to later accounts, where one has no room for all.
_LEAST_USEFUL: tuple[Kind, ...] = ("idle", "boot", "lost", "kept")

# What is lost when a sum of many spells is rounded up must not become a second.
_DUST = 1e-6


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """Whole seconds of one worker. `at` is when the first of them was, about, in seconds since the epoch.

    `waste` is "" for time that went into answers which are kept.
    """

    worker: str
    seconds: int
    waste: Waste
    at: float
    instance_type: str = ""
    region: str = ""
    zone: str = ""
    usd_per_second: Decimal = Decimal(0)
    source: str = ""


class Account(Accounted, frozen=True, kw_only=True):
    """The account of the last of `shards`; those before it have accounts of their own, in that order.

    `workers` is what they have claimed together of each worker, this one included.
    """

    charges: tuple[Charge, ...] = ()


NOTHING = Account()


def next_account(
    shard: str,
    beats: Iterable[Beat],
    gone: Collection[str],
    before: Account = NOTHING,
    *,
    unkept: Mapping[str, float] | None = None,
    most: float = math.inf,
) -> Account:
    """The account of a shard that has ended.

    `beats` are the last ones of all workers of the fleet, `gone` the names of those that will not beat again. The time
    of a worker at shards that have not ended is left to their accounts; so is what one that may come back has not said.
    Of those that died at this shard, `unkept` is for how long they had been at it since their last part. What would be
    charged beyond `most` seconds is left to later accounts.
    """
    if shard in before.shards:
        raise ValueError(f"{shard} has an account")
    shards = (*before.shards, shard)
    workers = dict(before.workers)
    known = {beat.worker: beat for beat in beats}
    up_before = machine_time_before(known.values())
    claims: dict[str, Claimed] = {}
    for name, beat in sorted(known.items()):
        old = workers.get(name, Claimed())
        new = _claimable(beat, frozenset(shards), up_before[name], gone=name in gone)
        if name in gone:
            new = _with_lost(new, _died_at(beat, shard, (unkept or {}).get(name, 0.0)))
        claims[name] = _grown(old, new)
    charges: list[Charge] = []
    for name, claimed in _within(claims, workers, most).items():
        old = workers.get(name, Claimed())
        charges += _charges(known[name], known[name].started - up_before[name], old, claimed)
        workers[name] = claimed
    return Account(shards=shards, charges=tuple(charges), workers=workers)


def _within(claims: Mapping[str, Claimed], before: Mapping[str, Claimed], most: float) -> dict[str, Claimed]:
    """The claims, cut down until no more than `most` seconds are charged for them; first what was not used.

    What is cut are seconds as they are charged, so that no room is left while there is anything to be charged.
    """
    cut = dict(claims)
    charged = sum(_new(before.get(name, Claimed()), claimed, kind) for name, claimed in cut.items() for kind in _WASTE)
    if charged <= most:
        return cut
    over = charged - math.floor(most)
    for kind in _LEAST_USEFUL:
        for name, claimed in cut.items():
            old = before.get(name, Claimed())
            off = min(over, _new(old, claimed, kind))
            if off > 0:
                cut[name] = _without(old, claimed, kind, off)
                over -= off
    return cut


def _new(old: Claimed, new: Claimed, kind: Kind) -> int:
    """Whole seconds of a kind that are charged for what was claimed since `old`."""
    return _whole(getattr(new, kind), kind) - _whole(getattr(old, kind), kind)


def _without(old: Claimed, new: Claimed, kind: Kind, off: int) -> Claimed:
    """With so many whole seconds less of a kind, and no less than `old`: `off` is at most what is new."""
    left = _whole(getattr(new, kind), kind) - off
    return msgspec.structs.replace(new, **{kind: max(getattr(old, kind), float(left))})


def _claimable(beat: Beat, ended: Collection[str], up_before: float, *, gone: bool) -> Claimed:
    """All that may be claimed of a worker by now."""
    spells = [spell for spell in beat.spells if spell.shard in ended]
    lost = sum(spell.lost for spell in spells)
    kept = sum(spell.seconds for spell in spells) - lost
    if gone:
        # What it has not said any more was lost with it.
        told = beat.boot + beat.waited + sum(spell.seconds for spell in beat.spells)
        lost += max(0.0, beat.at - beat.started - told)
    return Claimed(kept=max(0.0, kept), lost=lost, boot=beat.boot + up_before, idle=beat.waited)


def _died_at(beat: Beat, shard: str, unkept: float) -> float:
    """Seconds of the shard's spell that came behind the last part of a worker that died, and that it has not told."""
    if beat.exit_code is not None or not beat.spells or beat.spells[-1].shard != shard:
        return 0.0
    spell = beat.spells[-1]
    return max(0.0, min(unkept, spell.seconds) - spell.lost)


def _with_lost(claimed: Claimed, seconds: float) -> Claimed:
    moved = min(seconds, claimed.kept)
    return msgspec.structs.replace(claimed, kept=claimed.kept - moved, lost=claimed.lost + moved)


def _grown(old: Claimed, new: Claimed) -> Claimed:
    """Both together, where nothing shrinks: what was claimed stays claimed.

    Time at shards may turn out to be kept that was taken for lost, when a worker comes back that was taken for dead:
    then the sum of both holds, and what is new goes to where it belongs as far as it reaches.
    """
    added = max(0.0, new.kept + new.lost - old.kept - old.lost)
    lost = min(added, max(0.0, new.lost - old.lost))
    return Claimed(
        kept=old.kept + (added - lost),
        lost=old.lost + lost,
        boot=max(old.boot, new.boot),
        idle=max(old.idle, new.idle),
    )


def _charges(beat: Beat, begun: float, old: Claimed, new: Claimed) -> Iterator[Charge]:
    at = begun + old.seconds
    for kind, waste in _WASTE.items():
        seconds = _new(old, new, kind)
        if seconds:
            yield Charge(
                worker=beat.worker,
                seconds=seconds,
                waste=waste,
                at=at,
                instance_type=beat.instance_type,
                region=beat.region,
                zone=beat.zone,
            )
        at += getattr(new, kind) - getattr(old, kind)


def _whole(seconds: float, kind: Kind) -> int:
    """Of all that was claimed so far, so that rounding adds a second at most, however many accounts there are.

    Whoever has answered anything has worked for a second; waste of less than half a second is none.
    """
    return math.ceil(seconds - _DUST) if kind == "kept" else math.floor(seconds + 0.5)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of a shard: who made it, and when by the store's clock."""

    worker: str
    at: float


def unkept(holds: Sequence[Hold], parts: Iterable[float], beats: Mapping[str, float]) -> dict[str, float]:
    """For how long each worker was at a shard after its last part, or after its claim, until its last beat.

    `holds` are the shard's claims in their order, `parts` the times of its parts and `beats` those of the workers' last
    beats: all by the store's clock, in seconds since the epoch.
    """
    times = sorted(parts)
    found: dict[str, float] = {}
    for number, hold in enumerate(holds):
        until = holds[number + 1].at if number + 1 < len(holds) else math.inf
        last = max((at for at in times if hold.at <= at < until), default=hold.at)
        if hold.worker in beats:
            found[hold.worker] = max(0.0, beats[hold.worker] - last)
    return found
