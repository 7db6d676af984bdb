"""Taking documents out of one run: its requests, raw answers, rows, index and list of inputs.

The order of writes is such that the same again finishes what a killed process has left: what says which records are
meant, the index, goes behind everything that is found by it, and the list of inputs, by which the run is found, last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from lowtide import events as e
from lowtide.engine.building import questions_of
from lowtide.errors import NotFound
from lowtide.forgetting.cached import drop_entries
from lowtide.forgetting.heirs import Key, Keyed, find_heirs, keys_of
from lowtide.forgetting.rewriting import (
    Rewriter,
    arrow_changed,
    parquet_changed,
    parquet_without,
    read_arrow,
    read_parquet,
    without_records,
)
from lowtide.forgetting.shards import Findings, Heir, without_documents, without_ordinals
from lowtide.forgetting.standing import Opened
from lowtide.forgetting.target import Target
from lowtide.ownership import this_owner
from lowtide.plan import RunPlan
from lowtide.protocols import Store
from lowtide.rootwalk import RunPlace
from lowtide.shards import ShardState
from lowtide.states import BUILD_LEASE

_PLACES = ("requests/", "index/", "answers/", "rows/")
_STAGED = ("bedrock/", "ondemand/")


@dataclass
class ShardFiles:
    """Every file that a shard has ever had by its journal: paths under the run."""

    requests: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    rows: set[str] = field(default_factory=set)
    index: set[str] = field(default_factory=set)


def files_of(run: Opened) -> dict[int, ShardFiles]:
    """The files of each shard, also those that later ones have taken the place of."""
    found: dict[int, ShardFiles] = {number: ShardFiles() for number in run.state.shards}
    for _, entry in run.journal.history():
        for event in entry.events:
            match event:
                case e.ShardBuilt():
                    files = found[event.shard]
                    files.requests.add(event.requests)
                    files.index |= {event.index, event.twin_rows} - {""}
                    files.rows |= {event.reused_rows} - {""}
                case e.Retrying():
                    found[event.shard].requests.add(event.requests)
                case e.Collected():
                    found[event.shard].answers |= {event.answers} - {""}
                case e.Settled():
                    found[event.shard].rows.add(event.rows)
    return found


def lists(store: Store, place: RunPlace, target: Target) -> bool:
    """Whether the run reads, or has read, a file that may hold one of the documents."""
    try:
        with store.open(f"{place.prefix}/inputs.parquet") as source:
            files = read_parquet(source, ["uri"])
    except NotFound:
        return False
    return bool(target.lies_in(files).any())


def forget_in_inputs(rewriter: Rewriter, run: Opened, target: Target) -> None:
    """Strike the file from the list of what the run reads, if the file itself is the document."""
    rewriter.rewrite("inputs", f"{run.prefix}/inputs.parquet", parquet_without(target.is_file_in, ["uri"]))


def forget_in_unbuilt(rewriter: Rewriter, run: Opened, target: Target, clock: Callable[[], float]) -> None:
    """The same for a run that has read nothing yet, while nobody else begins to. Raises Superseded if one does."""
    state, owner = run.state, this_owner()
    if rewriter.dry or not state.entry or state.cancelled:
        forget_in_inputs(rewriter, run, target)
        return
    now = clock()
    run.journal.append(
        e.Building(at=now, owner=owner, expires=now + BUILD_LEASE),
        guard=lambda there: there.entry == state.entry,
    )
    forget_in_inputs(rewriter, run, target)
    run.journal.append(
        e.Building(at=clock(), owner="", expires=0.0), guard=lambda there: there.builder == owner and not there.shards
    )


def reset(rewriter: Rewriter, run: Opened) -> None:
    """Take a run that was given up while it was reading back to its plan. It has sent nothing, and bought nothing."""
    rewriter.touched.add("runs", sum(shard.documents for shard in run.state.shards.values()))
    if rewriter.dry:
        return
    for folder in ("snapshots/", "journal/", *_PLACES, "raw/"):
        # The newest first: what is left of a journal is always the beginning of one.
        for info in reversed(list(rewriter.store.list(f"{run.prefix}/{folder}"))):
            rewriter.store.delete(info.path)


def forget_in_closed(rewriter: Rewriter, run: Opened, plan: RunPlan, target: Target) -> None:
    """Take the documents out of all files of a run that has ended."""
    files = files_of(run)
    shards = _Shards(rewriter, run, plan, target)
    for shard, findings in shards.found():
        _forget_in_shard(rewriter, run, plan, shard, files[shard.number], findings, target)
    shards.drop_heirs()
    _sweep(rewriter, run, files)
    forget_in_inputs(rewriter, run, target)


def holds_in_shards(rewriter: Rewriter, run: Opened, target: Target) -> bool:
    """Whether any shard has one of the documents."""
    return any(
        target.found_in(_read_index(rewriter, run, shard.index, ["document_id", "document_uri"])).any()
        for shard in run.state.shards.values()
    )


def address_in_shards(store: Store, run: Opened, document_id: str) -> str:
    """The address of the document with this id, as the run's shards have it; "" if they do not."""
    for shard in run.state.shards.values():
        with store.open(f"{run.prefix}/{shard.index}") as source:
            index = read_parquet(source, ["document_id", "document_uri"])
        found = index.filter(pa.compute.equal(index["document_id"], document_id))
        if len(found):
            return str(found["document_uri"][0].as_py())
    return ""


def _read_index(rewriter: Rewriter, run: Opened, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    with rewriter.store.open(f"{run.prefix}/{name}") as source:
        return read_parquet(source, columns)


class _Shards:
    """The run's shards, and the requests that repeat others in it."""

    def __init__(self, rewriter: Rewriter, run: Opened, plan: RunPlan, target: Target) -> None:
        self._rewriter, self._run, self._target = rewriter, run, target
        self._operations = len(plan.operations)
        self._questions = questions_of(plan)
        self._twins = [shard.twin_rows for shard in run.state.shards.values() if shard.twin_rows]
        self._heirs: dict[Key, Heir] = {}
        self._chosen: set[tuple[str, int]] = set()
        if self._twins:
            wanted = {keyed.key for shard, found in self._each() for keyed in self._keyed(shard, found)}
            self._heirs = find_heirs((_read_index(rewriter, run, name) for name in self._twins), target, wanted)

    def found(self) -> Iterator[tuple[ShardState, Findings]]:
        """The shards that have one of the documents, and what of it."""
        for shard, findings in self._each():
            if self._heirs:
                keyed = self._keyed(shard, findings)
                findings.heirs = {one.ordinal: self._heirs[one.key] for one in keyed if one.key in self._heirs}
                self._chosen |= {heir.name for heir in findings.heirs.values()}
            yield shard, findings

    def drop_heirs(self) -> None:
        """Take the documents, and what has a record of its own by now, out of the repeated requests.

        A killed call may leave the latter behind: who publishes passes over those that have a row of their own.
        """

        def change(table: pa.Table) -> pa.Table | None:
            names = zip(table["document_id"].to_pylist(), table["op"].to_pylist(), strict=True)
            meant = np.array([name in self._chosen for name in names], np.bool_) | self._target.found_in(table)
            return table.filter(pa.array(~meant)) if meant.any() else None

        for name in self._twins:
            self._rewriter.rewrite("index", f"{self._run.prefix}/{name}", parquet_changed(change))

    def _each(self) -> Iterator[tuple[ShardState, Findings]]:
        for _, shard in sorted(self._run.state.shards.items()):
            findings = Findings.of(_read_index(self._rewriter, self._run, shard.index), self._target, self._operations)
            if findings is not None:
                yield shard, findings

    def _keyed(self, shard: ShardState, findings: Findings) -> Iterator[Keyed]:
        if shard.rows:
            with self._rewriter.store.open(f"{self._run.prefix}/{shard.rows}") as source:
                yield from keys_of(findings.mine, read_arrow(source), self._questions)


def _forget_in_shard(
    rewriter: Rewriter,
    run: Opened,
    plan: RunPlan,
    shard: ShardState,
    files: ShardFiles,
    findings: Findings,
    target: Target,
) -> None:
    path = f"{run.prefix}/{{}}".format
    gone, records = findings.gone, findings.records
    drop_entries(rewriter, {path(name): gone for name in files.rows})
    for name in sorted(files.rows):
        change = partial(without_documents, target) if name == shard.reused_rows else findings.rows_after
        rewriter.rewrite("rows", path(name), arrow_changed(change))
    if gone:
        for name in sorted(files.answers):
            change = partial(without_ordinals, gone)
            rewriter.rewrite("answers", path(name), arrow_changed(change, compression="zstd"))
        for info in list(rewriter.store.list(path(f"raw/s{shard.number:05d}-"))):
            rewriter.rewrite("raw", info.path, without_records(records, blank=False))
        _forget_staged(rewriter, plan, shard.number, findings)
        for name in sorted(files.requests):
            rewriter.rewrite("requests", path(name), without_records(records, blank=True))
    rewriter.rewrite("index", path(shard.index), parquet_changed(findings.index_after))


def _forget_staged(rewriter: Rewriter, plan: RunPlan, number: int, findings: Findings) -> None:
    """What was laid out in the root for a provider, and is usually gone when a batch has been collected."""
    token = plan.token(number, 1).removesuffix("1")
    records = findings.records
    fleet, _, shard = token.removeprefix("lt-").rpartition("-s")
    for prefix in (*(f"{folder}{token}" for folder in _STAGED), f"spot/{fleet}/shards/s{shard}"):
        for info in list(rewriter.store.list(prefix)):
            name = info.path.rpartition("/")[2]
            if name.encode() in records.gone:
                rewriter.delete("raw", info.path)
            elif name.endswith((".jsonl", ".out")):
                rewriter.rewrite("raw", info.path, without_records(records, blank=False))


def _sweep(rewriter: Rewriter, run: Opened, files: Mapping[int, ShardFiles]) -> None:
    """Delete what a process has left that died between a file and its entry: nobody can say what is in it."""
    named = {f"{run.prefix}/{name}" for shard in files.values() for name in _all(shard)}
    for folder in _PLACES:
        for info in list(rewriter.store.list(f"{run.prefix}/{folder}")):
            if info.path not in named:
                rewriter.delete("leftovers", info.path)


def _all(files: ShardFiles) -> set[str]:
    return files.requests | files.answers | files.rows | files.index
