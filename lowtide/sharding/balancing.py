"""Providers refuse batches of too few records. So a shard that came out too small takes some of the one before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lowtide.sharding.shard import BuiltShard, Position

_ORDINAL = len("r0000000")


@dataclass(frozen=True, slots=True)
class Balance:
    """What a shard may hold at least and at most. `offsets`: where in each operation's line the record id stands.

    A shard of many documents may have few records, or none, where their answers are there already.
    """

    minimum: int
    records: int
    documents: int
    size: int
    offsets: Sequence[int]

    def balanced(self, shards: Iterator[BuiltShard]) -> Iterator[BuiltShard]:
        """The same documents in shards that hold the minimum, as far as that can be. Holds two shards at a time.

        Two shards that are too small together become one, even beyond what the job asks a shard to hold. What is left
        below the minimum then is all that there is, or cannot lie beside its neighbour.
        """
        held: BuiltShard | None = None
        for shard in shards:
            if held is None or not self._too_few(held, shard):
                if held is not None:
                    yield held
                held = shard
                continue
            if self._even(held, shard):
                yield held
            elif self._fit(held, shard):
                self._move(held, shard, 0)
            else:
                yield held
            held = shard
        if held is not None:
            yield held

    def _even(self, first: BuiltShard, second: BuiltShard) -> bool:
        """Share out the records: half to each, or as few as are needed if half is too much; False if neither works."""
        total, width = first.records + second.records, len(self.offsets)
        for keep in ((total + 1) // 2, total - self.minimum - width + 1):
            cut = _cut(first, keep)
            kept = first.first[cut] if cut else 0
            size = sum(map(len, first.lines[kept:]))
            if min(kept, total - kept) >= self.minimum and second.size + size <= self.size:
                self._move(first, second, cut)
                return True
        return False

    def _too_few(self, first: BuiltShard, second: BuiltShard) -> bool:
        """Whether the two had better be one, or share out what they have."""
        fewer, more = sorted((first.records, second.records))
        return 0 < fewer < self.minimum or (not fewer and 0 < more < self.minimum)

    def _fit(self, first: BuiltShard, second: BuiltShard) -> bool:
        if first.documents + second.documents > self.documents:
            return False
        return first.records + second.records <= self.records and first.size + second.size <= self.size

    def _move(self, first: BuiltShard, second: BuiltShard, cut: int) -> None:
        """Move the first shard's documents from number `cut` on to the front of the second; with 0, all of them."""
        start = first.first[cut] if cut else 0
        lines = first.lines[start:]
        moved, size = len(lines), sum(map(len, lines))
        second.ops = [*first.ops[start:], *second.ops]
        whole = zip([*lines, *second.lines], second.ops, strict=True)
        second.lines = [self._renumbered(line, op, at) for at, (line, op) in enumerate(whole)]
        second.size += size
        second.first = [
            *(at - start if at >= 0 else at for at in first.first[cut:]),
            *(at + moved if at >= 0 else at for at in second.first),
        ]
        del first.lines[start:], first.ops[start:], first.first[cut:]
        first.size -= size
        for mine, other in zip(first.columns(), second.columns(), strict=True):
            other[:0] = mine[cut:]
            del mine[cut:]
        if cut:
            first.end = Position(first.files[-1], first.behind[-1])
            second.start = first.end
        else:
            second.number, second.start = first.number, first.start

    def _renumbered(self, line: bytes, op: int, ordinal: int) -> bytes:
        at = self.offsets[op]
        return line[:at] + b"r%07d" % ordinal + line[at + _ORDINAL :]


def _cut(shard: BuiltShard, keep: int) -> int:
    """The number of the readable document before which at least `keep` records lie; 0 if there is none."""
    readable = [at for at, first in enumerate(shard.first) if first >= 0]
    place = bisect_left(readable, keep, key=lambda at: shard.first[at])
    return readable[place] if place < len(readable) else 0
