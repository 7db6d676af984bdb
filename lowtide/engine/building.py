"""The build step: from the run's documents to its shards, resumable at every shard."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from itertools import tee
from pathlib import Path

import pyarrow as pa

from lowtide import events as e
from lowtide.cache.index import CacheIndex
from lowtide.cache.keys import question
from lowtide.collecting.elsewhere import reused_rows, twin_table
from lowtide.collecting.rows import asked_of, write_rows
from lowtide.engine.context import Context
from lowtide.errors import NotFound
from lowtide.inputs import read_inputs, spool
from lowtide.journal import Superseded
from lowtide.plan import RunPlan
from lowtide.protocols import Store
from lowtide.records import DocumentBatch, FileInfo
from lowtide.sharding import BuiltShard, Position, ShardBuilder
from lowtide.sharding.builder import write_index
from lowtide.sharding.reuse import Known, fields_of, one_line, request_keys
from lowtide.states import BUILD_LEASE, RunState

_LOG = logging.getLogger("lowtide.engine")
_SALT = ".lowtide/salt"


def root_salt(context: Context) -> bytes:
    """The root's secret for document markers, made on first use."""
    context.store.put_if_absent(_SALT, secrets.token_hex(32).encode())
    return context.store.read(_SALT)


def build(context: Context, on_documents: Callable[[int], None]) -> None:
    """Build all shards that are not built yet. Raises Superseded if another process builds."""
    with spool() as folder:
        # Before the claim: it takes a while, and the claim says that documents are being read.
        known = known_answers(context, Path(folder))
        started = context.clock()
        claim = e.Building(at=started, owner=context.owner, expires=started + BUILD_LEASE)
        context.journal.append(
            claim,
            guard=lambda now: (
                not now.build_finished
                and not now.cancelled
                and (not now.builder or context.stale(now.builder, now.builder_expires))
            ),
        )
        _remember(context, known)
        _build(context, known, started, on_documents)


def _build(context: Context, known: Known, started: float, on_documents: Callable[[int], None]) -> None:
    state = context.state
    builder = ShardBuilder(
        context.backend,
        context.work.operations,
        salt=root_salt(context),
        shard_records=context.plan.shard_records,
        field_names=context.plan.fields,
        known=known,
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
        context.journal.append(_store(context, shard, known), guard=lambda now: _still_building(context, now))
    documents = sum(shard.documents for shard in context.state.shards.values())
    now = context.clock()
    finished = e.BuildFinished(at=now, documents=documents, bytes_read=counter.bytes, seconds=now - started)
    context.journal.append(finished, guard=lambda now: _still_building(context, now))


def _still_building(context: Context, now: RunState) -> bool:
    return now.builder == context.owner and not now.cancelled


def known_answers(context: Context, folder: Path) -> Known:
    """What earlier runs have bought, as far as the run may use it. Its files are kept in `folder`."""
    store, work = context.store, context.work
    questions = questions_of(context.plan)
    indexes = {}
    if work.use_cache and not context.plan.refresh:
        indexes = {question: CacheIndex.open(store, question, folder) for question in dict.fromkeys(questions)}
        for warning in (warning for index in indexes.values() for warning in index.warnings):
            _LOG.warning("answers in the cache are passed over, and asked again: %s", warning)
    return Known(work.operations, questions, indexes, exists=lambda source: _is_usable(store, source))


def _is_usable(store: Store, source: str) -> bool:
    """Whether a shard's rows are there, and can be read."""
    try:
        with store.open(source) as rows:
            return "ordinal" in pa.ipc.open_file(rows).schema.names
    except NotFound:
        return False
    except pa.ArrowException as error:
        _LOG.warning("answers are asked again, since their file is damaged: %s: %s", store.uri_of(source), error)
        return False


def questions_of(plan: RunPlan) -> list[str]:
    """What each operation of the run asks, of which model, as the cache knows it: whatever the job file says by now."""
    return [question(operation.version, plan.model, plan.parameters) for operation in plan.operations]


def _remember(context: Context, known: Known) -> None:
    """Take in the requests of the shards that are built already, so that they are not asked again."""
    operations = context.work.operations
    for shard in context.state.shards.values():
        if not shard.total:
            continue
        index = context.index(shard)
        asked = asked_of(index, len(operations))
        for op, operation in enumerate(operations):
            having = index.filter(pa.array((asked >> op) & 1 == 1))
            if not len(having):
                continue
            fields = {name: list(map(one_line, having[f"field:{name}"].to_pylist())) for name in fields_of(operation)}
            known.remember(op, request_keys(operation, having["content_sha256"].to_pylist(), fields))


def _store(context: Context, shard: BuiltShard, known: Known) -> e.ShardBuilt:
    """Write the shard's files. Their names are new each time: if two processes build, the journal says whose count."""
    name = f"s{shard.number:05d}-a1-{secrets.token_hex(3)}"
    requests, index = f"requests/{name}.jsonl", f"index/{name}.parquet"
    if shard.records:
        with context.store.writer(context.path(requests)) as out:
            out.writelines(shard.lines)
    table = shard.index(context.plan.fields)
    with context.store.writer(context.path(index)) as out:
        write_index(table, out)
    reused = ""
    saved: tuple[e.Tally, ...] = ()
    if any(shard.reused):
        reused = f"rows/{name}-reused.arrow"
        found = reused_rows(
            shard,
            table,
            lambda source: context.store.open(known.sources[source]),
            context.plan.fields,
            context.work.price.on_demand,
        )
        saved = found.saved
        with context.store.writer(context.path(reused)) as out:
            write_rows(found.rows, out)
    twins = ""
    if any(shard.twins):
        twins = f"index/{name}-twins.parquet"
        repeated = twin_table(shard, table, context.work.operations, known.questions)
        with context.store.writer(context.path(twins)) as out:
            write_index(repeated, out)
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
        text_bytes=shard.text_bytes,
        reused=sum(map(len, shard.reused)),
        reused_rows=reused,
        saved=saved,
        twins=sum(map(int.bit_count, shard.twins)),
        twin_rows=twins,
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
