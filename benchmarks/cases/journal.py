"""The journal: seven transitions for each of 1,000 shards, one entry each, on the local disk."""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.case import Case, Check, Plan, Prepare, Results, Setting, Target, Work
from benchmarks.figures import cpu_seconds, rss_megabytes, wall_seconds
from lowtide import events as e
from lowtide.connectors.stores.local import LocalStore
from lowtide.journal import Journal

_OWNER = "bench"


def _transitions(shard: int) -> list[e.AnyEvent]:
    at = 1_770_000_000.0 + shard
    tallies = (e.Tally("input", 4_000_000), e.Tally("output", 1_000_000))
    return [
        e.ShardBuilt(
            at=at,
            shard=shard,
            documents=10_000,
            records=10_000,
            size=25_000_000,
            requests=f"requests/s{shard:05d}-a1-abcdef.jsonl",
            index=f"index/s{shard:05d}-a1-abcdef.parquet",
            file=shard,
            document=10_000,
            owner=_OWNER,
            input_tokens=6_250_000,
        ),
        e.Submitting(at=at, shard=shard, attempt=1, token=f"lt-s{shard:05d}-a1", owner=_OWNER, expires=at + 600),
        e.Missing(at=at, shard=shard, attempt=1),
        e.Submitted(at=at, shard=shard, attempt=1, batch_id=f"batch_{shard:032x}"),
        e.Ended(at=at, shard=shard, attempt=1, outcome="completed", provider_state="completed"),
        e.Collected(
            at=at, shard=shard, attempt=1, remaining=0, counts={"ok": 10_000}, tallies=tallies, raw_bytes=12_700_000
        ),
        e.Settled(at=at, shard=shard, rows=f"rows/s{shard:05d}-abcdef.arrow", counts={"ok": 10_000}),
    ]


def _lowtide(setting: Setting) -> Work:
    steps = [_transitions(shard) for shard in range(1, setting.size + 1)]

    def work() -> Check:
        journal = Journal(LocalStore(setting.out), "runs/bench/all/0123456789abcdef", _OWNER)
        for events in steps:
            for event in events:
                journal.append(event)

        def check() -> None:
            again = Journal(LocalStore(setting.out), "runs/bench/all/0123456789abcdef", "somebody else")
            assert again.refresh() == journal.state
            assert len(again.state.shards) == setting.size
            assert all(shard.phase == "settled" for shard in again.state.shards.values())
            assert again.state.entry == 7 * setting.size

        return check

    return work


def _files(setting: Setting) -> Work:
    """The floor: as many small files, each written, flushed and given its name, by nothing but system calls."""
    content = b"x" * 300

    def work() -> Check:
        for number in range(7 * setting.size):
            staged = setting.out / ".staged"
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(descriptor, content)
            os.fsync(descriptor)
            os.close(descriptor)
            os.link(staged, setting.out / f"{number:06d}")
            staged.unlink()

        def check() -> None:
            assert sum(1 for _ in setting.out.iterdir()) == 7 * setting.size

        return check

    return work


def _targets(plan: Plan) -> list[Target]:
    targets = []
    for size in plan.variants:
        ours = ("lowtide", size)
        bound = 2.5 * size / 1000
        targets += [
            Target(f"{size:,} shards x 7 transitions, wall", wall_seconds(ours), at_most=bound, unit="s"),
            Target("the same, in that of as many bare files", _over(ours, ("files", size))),
            Target("CPU", cpu_seconds(ours), unit="s"),
            Target("peak RSS", rss_megabytes(ours), unit="MB"),
        ]
    return targets


def _over(ours: tuple[str, int], floor: tuple[str, int]) -> Callable[[Results], float]:
    return lambda results: results[ours].wall / results[floor].wall


_ALL: dict[str, Prepare] = {"lowtide": _lowtide, "files": _files}

CASE = Case(
    name="journal",
    title="Journal entries on the local disk",
    variants=_ALL,
    full=Plan({1_000: tuple(_ALL)}, rounds=3),
    quick=Plan({100: tuple(_ALL)}, rounds=1),
    targets=_targets,
)
