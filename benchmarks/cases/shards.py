"""Building shards: from one Parquet file of documents to files of request lines, with what the join back needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import orjson

from benchmarks import batch, data
from benchmarks.case import Case, Check, Plan, Prepare, Setting, Target, Work
from benchmarks.figures import cpu_ratio, rss_growth, rss_megabytes
from benchmarks.jobs import SOURCE, StandIn, close, work_on


def _setup(folder: Path, size: int) -> None:
    data.write_parquet(folder / SOURCE, size)


def _lowtide(setting: Setting) -> Work:
    from lowtide.engine import open_run  # noqa: PLC0415 - each variant pays for its own imports only
    from lowtide.engine.building import build  # noqa: PLC0415

    def work() -> Check:
        job = work_on(setting.data, setting.out, StandIn())
        run = open_run(job)
        build(run.context, lambda documents: None)
        close(job)
        assert run.state.documents == setting.size
        return lambda: _check(sorted(setting.out.rglob("requests/*.jsonl")), setting.size)

    return work


def _by_dict(dumps: Callable[[object], bytes], setting: Setting) -> Work:
    import pyarrow.parquet as pq  # noqa: PLC0415

    def work() -> Check:
        shards = _Shards(setting.out)
        for rows in pq.ParquetFile(setting.data / SOURCE, pre_buffer=False).iter_batches(batch_size=1_000):
            for row in rows.to_pylist():
                shards.write(dumps, row["ticket"], row["body"])
        shards.close()
        return lambda: _check(shards.paths, setting.size)

    return work


def _pandas(setting: Setting) -> Work:
    import pandas as pd  # noqa: PLC0415

    def work() -> Check:
        shards = _Shards(setting.out)
        for _, row in pd.read_parquet(setting.data / SOURCE).iterrows():
            shards.write(_json, row["ticket"], row["body"])
        shards.close()
        return lambda: _check(shards.paths, setting.size)

    return work


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


class _Shards:
    """Files of as many lines as a shard of ours, as a loop of a page would write them: no hashes, no index."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[Path] = []
        self._folder = folder
        self._lines = 0
        self._out: BinaryIO | None = None

    def write(self, dumps: Callable[[object], bytes], key: str, text: str) -> None:
        if self._out is None or self._lines == batch.SHARD_RECORDS:
            self.close()
            self.paths.append(self._folder / f"{len(self.paths):05d}.jsonl")
            self._out = self.paths[-1].open("wb")
            self._lines = 0
        self._out.write(dumps(batch.request_body(key, batch.prompt(text))) + b"\n")
        self._lines += 1

    def close(self) -> None:
        if self._out is not None:
            self._out.close()


def _check(paths: list[Path], size: int) -> None:
    """Every shard's first line, and the number of all lines, against the documents that were generated."""
    first = next(iter(data.texts(1, 7)))
    lines = 0
    for path in paths:
        with path.open("rb") as source:
            for number, chunk in enumerate(_chunks(source)):
                lines += chunk.count(b"\n")
                if number == 0:
                    content = orjson.loads(chunk.partition(b"\n")[0])["body"]["messages"][1]["content"]
                    assert "\nTicket " in content
                    assert path != paths[0] or f"\n{first}\n" in content
    assert lines == size, f"{lines} lines for {size} documents"


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(1 << 16), b"")


def _targets(plan: Plan) -> list[Target]:
    small, *larger = plan.variants
    ours = ("lowtide", small)
    targets = [
        Target("CPU of pandas iterrows + json, in ours", cpu_ratio(("pandas", small), ours), at_least=7),
        Target("CPU of json for each dict, in ours", cpu_ratio(("json", small), ours), at_least=2),
        Target("CPU of orjson for each dict, in ours", cpu_ratio(("orjson", small), ours)),
        Target(f"peak RSS, {small:,} documents", rss_megabytes(ours), at_most=250, unit="MB"),
    ]
    for size in larger:
        label = f"peak RSS, {size:,} in units of {small:,} documents"
        targets.append(Target(label, rss_growth(("lowtide", size), ours), at_most=1.15))
    return targets


_ALL: dict[str, Prepare] = {
    "lowtide": _lowtide,
    "orjson": partial(_by_dict, orjson.dumps),
    "json": partial(_by_dict, _json),
    "pandas": _pandas,
}

CASE = Case(
    name="shards",
    title="Shards from a Parquet file of 1.9 KB documents",
    variants=_ALL,
    full=Plan({200_000: tuple(_ALL), 1_000_000: ("lowtide",)}, rounds=2),
    quick=Plan({10_000: tuple(_ALL)}, rounds=1),
    targets=_targets,
    setup=_setup,
)
