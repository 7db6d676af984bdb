"""The build step: from the run's documents to its shards, resumable at every shard."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from itertools import tee

from lowtide import events as e
from lowtide.engine.context import Context
from lowtide.journal import Superseded
from lowtide.plan import read_inputs
from lowtide.records import DocumentBatch, FileInfo
from lowtide.sharding import BuiltShard, Position, ShardBuilder
from lowtide.sharding.builder import write_index
from lowtide.states import BUILD_LEASE, RunState

_SALT = ".lowtide/salt"


def root_salt(context: Context) -> bytes:
    """The root's secret for document markers, made on first use."""
    context.store.put_if_absent(_SALT, secrets.token_hex(32).encode())
    return context.store.read(_SALT)


def build(context: Context, on_documents: Callable[[int], None]) -> None:
    """Build all shards that are not built yet. Raises Superseded if another process builds."""
    started = context.clock()
    claim = e.Building(at=started, owner=context.owner, expires=started + BUILD_LEASE)
    state = context.journal.append(
        claim,
        guard=lambda now: (
            not now.build_finished
            and not now.cancelled
            and (not now.builder or context.stale(now.builder, now.builder_expires))
        ),
    )
    builder = ShardBuilder(
        context.backend,
        context.work.operations,
        salt=root_salt(context),
        shard_records=context.plan.shard_records,
        field_names=context.plan.fields,
    )
    start = Position(state.file, state.document)
    files, followed = tee(read_inputs(context.store, context.path("inputs.parquet"), skip=start.file))
    counter = _Counter(files, context, on_documents)
    shards = builder.build(
        counter.batches(),
        first_number=len(state.shards) + 1,
        start=start,
        uris=(info.uri for info in followed),
    )
    for shard in shards:
        context.journal.append(_store(context, shard), guard=lambda now: _still_building(context, now))
    documents = sum(shard.documents for shard in context.state.shards.values())
    now = context.clock()
    finished = e.BuildFinished(at=now, documents=documents, bytes_read=counter.bytes, seconds=now - started)
    context.journal.append(finished, guard=lambda now: _still_building(context, now))


def _still_building(context: Context, now: RunState) -> bool:
    return now.builder == context.owner and not now.cancelled


def _store(context: Context, shard: BuiltShard) -> e.ShardBuilt:
    """Write the shard's files. Their names are new each time: if two processes build, the journal says whose count."""
    name = f"s{shard.number:05d}-a1-{secrets.token_hex(3)}"
    requests, index = f"requests/{name}.jsonl", f"index/{name}.parquet"
    if shard.records:
        with context.store.writer(context.path(requests)) as out:
            out.writelines(shard.lines)
    with context.store.writer(context.path(index)) as out:
        write_index(shard.index(context.plan.fields), out)
    return e.ShardBuilt(
        at=context.clock(),
        shard=shard.number,
        documents=shard.documents,
        records=shard.records,
        size=shard.size,
        requests=requests,
        index=index,
        file=shard.end.file,
        document=shard.end.document,
        owner=context.owner,
        input_tokens=shard.tokens,
    )


class _Counter:
    """Counts what is read, keeps the claim on the build fresh, and tells the progress."""

    def __init__(self, files: Iterator[FileInfo], context: Context, on_documents: Callable[[int], None]) -> None:
        self._files = files
        self._context = context
        self._on_documents = on_documents
        self._documents = 0
        self.bytes = 0

    def _counted(self) -> Iterator[FileInfo]:
        for info in self._files:
            self.bytes += info.size
            yield info

    def batches(self) -> Iterator[DocumentBatch]:
        for batch in self._context.work.documents.read(self._counted()):
            now = self._context.clock()
            if now > self._context.state.builder_expires - BUILD_LEASE / 2:
                claim = e.Building(at=now, owner=self._context.owner, expires=now + BUILD_LEASE)
                self._context.journal.append(claim, guard=lambda state: _still_building(self._context, state))
            self._documents += len(batch)
            self._on_documents(self._documents)
            yield batch


__all__ = ["Superseded", "build", "root_salt"]
