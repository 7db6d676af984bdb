"""A request is in exactly one place: a line, an answer that is there already, or another request that is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from support.standins import Provider, StandInBackend, echo_operation

from lowtide import ids
from lowtide.cache.index import CacheIndex, Found
from lowtide.cache.keys import Keys, keys_of, question
from lowtide.collecting.rows import record_places
from lowtide.records import DocumentBatch, Limits
from lowtide.sharding import BuiltShard, Position, ShardBuilder
from lowtide.sharding.reuse import Known

MODIFIED = datetime(2026, 11, 2, tzinfo=UTC)
WIDTH = 3
OPERATIONS = tuple(echo_operation(f"op{at}") for at in range(WIDTH))
QUESTIONS = [question(operation.version, "echo-1", {}) for operation in OPERATIONS]


class Bought(CacheIndex):
    """An index of answers about these texts: each one's ordinal is its place among them."""

    def __init__(self, texts: list[str], source: str) -> None:
        self.sources = [source]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        self._known = {tuple(key): at for at, key in enumerate(keys_of(digests).tolist())}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, keys: Keys) -> Found:
        ordinal = np.array([self._known.get(tuple(key), -1) for key in keys.tolist()], dtype=np.int32)
        return Found(np.where(ordinal >= 0, 0, -1).astype(np.int32), ordinal)


def batches(texts: list[str | None]) -> Iterator[DocumentBatch]:
    for start in range(0, len(texts), 5):
        here = texts[start : start + 5]
        yield DocumentBatch(
            [f"u{start + at:03d}" for at in range(len(here))],
            [""] * len(here),
            [MODIFIED] * len(here),
            [text or "" for text in here],
            ["broken" if text is None else None for text in here],
        )


def build(
    texts: list[str | None], bought: dict[int, list[str]], *, minimum: int, shard_records: int, gone: bool = False
) -> list[BuiltShard]:
    limits = Limits(records=1000, bytes=1 << 20, request_bytes=10_000, live_batches=4, minimum_records=minimum)
    indexes = {QUESTIONS[op]: Bought(known, f"source {op}") for op, known in bought.items()}
    known = Known(OPERATIONS, QUESTIONS, indexes, exists=lambda source: not gone)
    backend = StandInBackend(Provider(), limits=limits)
    builder = ShardBuilder(backend, OPERATIONS, salt=b"salt", shard_records=shard_records, known=known)
    uris = iter([f"u{at:03d}" for at in range(len(texts))])
    return list(builder.build(batches(texts), first_number=1, start=Position(0, 0), uris=uris))


words = st.sampled_from(["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "g", "hh"])


@settings(max_examples=300)
@given(
    st.lists(st.none() | words, min_size=1, max_size=30),
    st.dictionaries(st.integers(0, WIDTH - 1), st.lists(words, unique=True)),
    st.sampled_from([1, 1, 4, 7]),
    st.integers(1, 20),
    st.booleans(),
)
def test_each_request_is_a_line_or_bought_or_the_same_as_another(
    texts: list[str | None], bought: dict[int, list[str]], minimum: int, shard_records: int, gone: bool
) -> None:
    shards = build(texts, bought, minimum=minimum, shard_records=shard_records, gone=gone)
    asked: set[tuple[int, str]] = set()
    seen = 0
    for shard in shards:
        places = record_places(shard.index(()), WIDTH)
        met: set[int] = set()
        for row, uri in enumerate(shard.uri):
            text = texts[int(uri[1:])]
            seen += 1
            for op in range(WIDTH):
                ordinal = int(places[row, op])
                reused = {operation: where for operation, *where in shard.reused[row]}
                is_twin = bool(shard.twins[row] >> op & 1)
                if text is None:
                    assert (ordinal, op in reused, is_twin) == (-1, False, False)
                elif text in bought.get(op, []) and not gone:
                    assert (ordinal, is_twin) == (-2, False)
                    assert reused[op][1] == bought[op].index(text)
                elif is_twin:
                    assert ordinal == -2
                    assert op not in reused
                else:
                    assert op not in reused
                    assert (op, text) not in asked
                    asked.add((op, text))
                    met.add(ordinal)
                    line = orjson.loads(shard.lines[ordinal])
                    digest = hashlib.sha256(text.encode()).hexdigest()
                    assert line == {"id": ids.record_id(ordinal, digest), "op": f"op{op}", "text": text}
        assert met == set(range(shard.records))
        assert shard.size == sum(map(len, shard.lines))
        assert shard.text_bytes == sum(len(orjson.loads(line)["text"].encode()) for line in shard.lines)
    assert seen == len(texts)
    wanted = {(op, text) for text in texts if text for op in range(WIDTH) if gone or text not in bought.get(op, [])}
    assert asked == wanted


def test_a_minimum_is_kept_where_answers_are_there_already() -> None:
    texts: list[str | None] = [f"text {number}" for number in range(40)]
    bought = {0: [f"text {number}" for number in range(0, 40, 2)], 1: [f"text {number}" for number in range(39)]}
    shards = build(texts, bought, minimum=20, shard_records=21)
    assert sum(shard.records for shard in shards) == 20 + 1 + 40
    assert all(shard.records >= 20 for shard in shards)


def test_few_questions_among_many_answers_still_make_a_batch() -> None:
    """Shards whose documents are all answered already must not keep the small ones beside them apart."""
    texts: list[str | None] = [f"text {number}" for number in range(300)]
    changed = {f"text {number}" for number in range(0, 300, 15)}
    bought = {op: [text for text in texts if text and text not in changed] for op in range(WIDTH)}
    shards = build(texts, bought, minimum=10, shard_records=30)
    assert sum(shard.records for shard in shards) == 20 * WIDTH
    assert all(shard.records >= 10 for shard in shards)
    assert all(shard.documents <= 8 * 30 for shard in shards)
