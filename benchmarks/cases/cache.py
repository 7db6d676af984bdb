"""The cache: what looking up every document adds to the shard build of the same documents, and what it holds.

A million documents at most are looked up, in the stretches in which they are made into lines; the size is that of the
cache. What is measured holds bringing its file to local disk, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import batch, data
from benchmarks.case import Case, Check, Plan, Prepare, Setting, Target, Work
from benchmarks.figures import cpu_ratio, rss_growth, rss_megabytes
from benchmarks.jobs import SOURCE, shard_builder
from lowtide.cache.keys import Keys, keys_of

STRETCH = 256
"""Documents that the shard builder makes into lines, and looks up, at a time."""

_MOST_DOCUMENTS = 1_000_000
_HASHES = "hashes.txt"
_DIGITS = 64
_QUESTIONS = {"none": 0.0, "half": 0.5, "all": 1.0}
"""Each a cache of the whole size, which holds that share of the documents."""


def _setup(folder: Path, size: int) -> None:
    from lowtide.cache.storage import write_entries  # noqa: PLC0415
    from lowtide.connectors.stores.local import LocalStore  # noqa: PLC0415

    documents = min(size, _MOST_DOCUMENTS)
    data.write_parquet(folder / SOURCE, documents)
    with (folder / _HASHES).open("w") as out:
        out.writelines(hashlib.sha256(text.encode()).hexdigest() for text in data.texts(documents, 7))
    for question, share in _QUESTIONS.items():
        pieces = _pieces(folder, size, round(1 / share) if share else 0)
        write_entries(LocalStore(folder / "root"), question, "bought", pieces, folder / "spool")


def _pieces(folder: Path, size: int, every: int) -> Iterator[tuple[str, Keys, npt.NDArray[np.int32]]]:
    """One piece for each shard of an earlier run: every so many of the documents, the rest keys of nobody."""
    chance = np.random.default_rng(3)
    documents = _keys(folder, batch.SHARD_RECORDS)
    for start in range(0, size, batch.SHARD_RECORDS):
        many = min(batch.SHARD_RECORDS, size - start)
        keys = chance.integers(0, 1 << 64, (many, 2), dtype=np.uint64)
        if every:
            ours = next(documents, keys[:0])
            keys[: len(ours) : every] = ours[::every]
        yield _source(start), keys, np.arange(many, dtype=np.int32)


def _source(start: int) -> str:
    return f"runs/tickets/2026-W01/0123456789abcdef/rows/s{start // batch.SHARD_RECORDS:05d}-3fa2c1.arrow"


def _hashes(folder: Path, many: int) -> Iterator[list[str]]:
    """The documents' hashes, so many at a time."""
    with (folder / _HASHES).open() as source:
        for digits in iter(lambda: source.read(many * _DIGITS), ""):
            yield [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]


def _keys(folder: Path, many: int) -> Iterator[Keys]:
    return (keys_of(hashes) for hashes in _hashes(folder, many))


def _look_up(question: str, setting: Setting) -> Work:
    from lowtide.cache.index import CacheIndex, Seen  # noqa: PLC0415
    from lowtide.connectors.stores.local import LocalStore  # noqa: PLC0415

    def work() -> Check:
        index, seen = CacheIndex.open(LocalStore(setting.data / "root"), question, setting.out), Seen()
        hits = repeated = 0
        for hashes in _hashes(setting.data, STRETCH):
            keys = keys_of(hashes)
            missing = index.find(keys).source < 0
            hits += len(keys) - int(missing.sum())
            repeated += int(seen.take(keys[missing]).sum())
        assert not repeated

        def check() -> None:
            assert len(index) == setting.size
            share, documents = _QUESTIONS[question], min(setting.size, _MOST_DOCUMENTS)
            assert hits == int(documents * share), f"{hits} hits among {documents} documents"
            found = index.find(next(_keys(setting.data, STRETCH)))
            bought = np.arange(len(found.source)) % round(1 / share) == 0 if share else np.False_
            assert (found.ordinal == np.where(bought, np.arange(len(found.source)), -1)).all()
            assert {index.sources[number] for number in found.source[found.source >= 0]} <= {_source(0)}

        return check

    return work


def _dict(setting: Setting) -> Work:
    import pyarrow.parquet as pq  # noqa: PLC0415

    def work() -> Check:
        (path,) = (setting.data / "root" / "cache" / "half").iterdir()
        columns = pq.read_table(path)
        places = zip(columns["source"].to_pylist(), columns["ordinal"].to_pylist(), strict=True)
        index = dict(zip(columns["key"].to_pylist(), places, strict=True))
        seen: set[bytes] = set()
        hits = 0
        for hashes in _hashes(setting.data, STRETCH):
            for found in hashes:
                key = bytes.fromhex(found)[:16]
                if key in index:
                    hits += 1
                elif key not in seen:
                    seen.add(key)

        def check() -> None:
            assert hits == min(setting.size, _MOST_DOCUMENTS) // 2

        return check

    return work


def _build(question: str, setting: Setting) -> Work:
    """Lines and index of every document that has to be asked, onto the disk; without a question, of every one."""
    from lowtide.cache.index import CacheIndex  # noqa: PLC0415
    from lowtide.connectors.documents import SourceDocuments  # noqa: PLC0415
    from lowtide.connectors.stores.local import LocalStore  # noqa: PLC0415
    from lowtide.sharding import Position  # noqa: PLC0415
    from lowtide.sharding.builder import write_index  # noqa: PLC0415
    from lowtide.sharding.reuse import Known  # noqa: PLC0415

    def work() -> Check:
        known = None
        if question:
            index = CacheIndex.open(LocalStore(setting.data / "root"), question, setting.out / "spool")
            known = Known([batch.OPERATION], [question], {question: index})
        source, out = LocalStore((setting.data / SOURCE).parent), LocalStore(setting.out / "root")
        documents = SourceDocuments(source, source.list, text="body", id="ticket", fields=("customer",))
        builder = shard_builder(known)
        asked = 0
        for shard in builder.build(
            documents.read(source.list()),
            first_number=1,
            start=Position(0, 0),
            uris=repeat(next(source.list()).uri),
        ):
            asked += shard.records
            with out.writer(f"requests/{shard.number:05d}.jsonl") as stream:
                stream.writelines(shard.lines)
            with out.writer(f"index/{shard.number:05d}.parquet") as stream:
                write_index(shard.index(("customer",)), stream)
        documents.close()
        assert asked == setting.size - int(setting.size * _QUESTIONS[question or "none"])
        return lambda: _check_lines(setting.out / "root", asked)

    return work


def _check_lines(root: Path, asked: int) -> None:
    lines = 0
    for path in (root / "requests").iterdir():
        with path.open("rb") as stream:
            lines += sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 16), b""))
    assert lines == asked


def _targets(plan: Plan) -> list[Target]:
    small, *larger = plan.variants
    build = ("shard build", small)
    shares = {"no hit": "lowtide, no hit", "half of them hits": "lowtide", "all hits": "lowtide, all hits"}
    targets = [
        Target(f"CPU of looking up, in the shard build's, {share}", cpu_ratio((variant, small), build), at_most=0.2)
        for share, variant in shares.items()
    ]
    targets += [
        Target(
            "CPU of a shard build that looks up, in one's that does not",
            cpu_ratio(("with cache", small), build),
            at_most=1.2,
        ),
        Target("peak RSS of a shard build that looks up", rss_megabytes(("with cache", small)), at_most=400, unit="MB"),
        Target(f"peak RSS of looking up, {small:,} entries", rss_megabytes(("lowtide", small)), unit="MB"),
        Target("CPU of a dict of all entries, in ours", cpu_ratio(("dict", small), ("lowtide", small))),
        Target("peak RSS of a dict of all entries", rss_megabytes(("dict", small)), unit="MB"),
    ]
    for size in larger:
        large = ("lowtide", size)
        targets += [
            Target(f"peak RSS of looking up, {size:,} entries", rss_megabytes(large), unit="MB"),
            Target(f"the same in units of {small:,} entries", rss_growth(large, ("lowtide", small)), at_most=1.15),
        ]
    return targets


_ALL: dict[str, Prepare] = {
    "shard build": partial(_build, ""),
    "lowtide": partial(_look_up, "half"),
    "lowtide, no hit": partial(_look_up, "none"),
    "lowtide, all hits": partial(_look_up, "all"),
    "with cache": partial(_build, "half"),
    "dict": _dict,
}

CASE = Case(
    name="cache",
    title="Looking a million documents up in the cache",
    variants=_ALL,
    full=Plan({1_000_000: tuple(_ALL), 10_000_000: ("lowtide",)}, rounds=2),
    quick=Plan({50_000: tuple(_ALL), 500_000: ("lowtide",)}, rounds=1),
    targets=_targets,
    setup=_setup,
)
