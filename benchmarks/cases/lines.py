"""The line kernel: from texts in memory to request lines with their index, beside serializing dicts that are ready."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import repeat

import orjson

from benchmarks import batch, data
from benchmarks.case import Case, Check, Plan, Prepare, Results, Setting, Target, Work
from benchmarks.figures import cpu_ratio
from benchmarks.jobs import shard_builder
from lowtide import ids
from lowtide.records import DocumentBatch
from lowtide.sharding import Position

_URI = "s3://bucket/tickets/2026/tickets.parquet"


def _documents(count: int) -> list[DocumentBatch]:
    found, source = [], data.texts(count, 11)
    for start in range(0, count, 1000):
        rows = range(start, min(start + 1000, count))
        many = len(rows)
        found.append(
            DocumentBatch(
                uris=[_URI] * many,
                keys=[f"T-{row:07d}" for row in rows],
                modified=[data.MODIFIED] * many,
                texts=[next(source) for _ in rows],
                reasons=[None] * many,
                fields={"customer": [f"customer {row % 997}" for row in rows]},
            )
        )
    return found


def _lowtide(setting: Setting) -> Work:
    batches = _documents(setting.size)

    def work() -> Check:
        builder = shard_builder()
        count = 0
        for shard in builder.build(batches, first_number=1, start=Position(0, 0), uris=repeat(_URI)):
            count += shard.records
            last = shard.lines[-1]
        assert count == setting.size

        def check() -> None:
            text, line = batches[-1].texts[-1], orjson.loads(last)
            assert line["custom_id"].endswith(hashlib.sha256(text.encode()).hexdigest()[:8])
            assert f"\n{text}\n" in line["body"]["messages"][1]["content"]

        return check

    return work


def _dumps(setting: Setting) -> Work:
    ready = [
        [batch.request_body(f"r{at:07d}x{12345678}", batch.prompt(text)) for at, text in enumerate(documents.texts)]
        for documents in _documents(setting.size)
    ]

    def work() -> Check:
        dumps = orjson.dumps
        for ten in range(0, len(ready), 10):
            lines = [dumps(body) for bodies in ready[ten : ten + 10] for body in bodies]
            assert len(lines) == min(batch.SHARD_RECORDS, setting.size - ten * 1000)
        return lambda: None

    return work


def _hashes(setting: Setting) -> Work:
    batches = _documents(setting.size)

    def work() -> Check:
        for documents in batches:
            found = [hashlib.sha256(text.encode()).hexdigest() for text in documents.texts]
            for uri, key, sha256 in zip(documents.uris, documents.keys, found, strict=True):
                ids.document_id(uri, key)
                ids.marker(b"salt", sha256)
        return lambda: None

    return work


def _targets(plan: Plan) -> list[Target]:
    targets = []
    for size in plan.variants:
        ours, dumps, hashes = ("lowtide", size), ("orjson.dumps of ready dicts", size), ("hashes alone", size)
        targets += [
            Target("speed of orjson.dumps of ready dicts", cpu_ratio(dumps, ours), at_least=0.65),
            Target("the same, the three SHA-256 of each document aside", _without(ours, hashes, dumps), at_least=0.65),
        ]
    return targets


def _without(ours: tuple[str, int], hashes: tuple[str, int], dumps: tuple[str, int]) -> Callable[[Results], float]:
    return lambda results: results[dumps].cpu / (results[ours].cpu - results[hashes].cpu)


_ALL: dict[str, Prepare] = {"lowtide": _lowtide, "orjson.dumps of ready dicts": _dumps, "hashes alone": _hashes}

CASE = Case(
    name="lines",
    title="Request lines and their index from texts in memory",
    variants=_ALL,
    full=Plan({100_000: tuple(_ALL)}, rounds=5),
    quick=Plan({20_000: tuple(_ALL)}, rounds=1),
    targets=_targets,
)
