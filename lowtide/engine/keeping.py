"""Keeping what a run has bought, so that no later run buys it again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lowtide.cache.keys import Keys
from lowtide.cache.storage import compact, write_entries
from lowtide.engine.building import questions_of
from lowtide.engine.context import Context
from lowtide.errors import LowtideError

_LOG = logging.getLogger("lowtide.engine")
_READ = ["ordinal", "op", "status", "key_hi", "key_lo"]


def keep_answers(context: Context, folder: Path) -> None:
    """Enter the run's answers into the root's cache. Doing it again changes nothing. `folder` is for what it spools."""
    if not context.work.use_cache:
        return
    questions = questions_of(context.plan)
    for question in dict.fromkeys(questions):
        ops = [op for op, asked in enumerate(questions) if asked == question]
        if any(shard.total for shard in context.state.shards.values()):
            # When it was begun: a run that is asked for once more has not bought its answers anew.
            asked_at = context.state.started_at
            write_entries(
                context.store, question, context.plan.run_id, _entries(context, ops), folder, asked_at=asked_at
            )
            try:
                compact(context.store, question, folder)
            except LowtideError as error:
                # Everything is there as it was, in more files than need be.
                _LOG.warning("the cache could not be compacted: %s", error)


def _entries(context: Context, ops: list[int]) -> Iterator[tuple[str, Keys, npt.NDArray[np.int32]]]:
    """Of each shard's rows: where they lie, and what the answered requests of these operations are known by."""
    for _, shard in sorted(context.state.shards.items()):
        if not shard.rows or not shard.total:
            continue
        path = context.path(shard.rows)
        rows = read_columns(context, path, _READ)
        if "key_hi" not in rows.column_names:  # an earlier version's
            continue
        bought = (rows["ordinal"].to_numpy() >= 0) & np.isin(rows["op"].to_numpy(), ops)
        bought &= pa.compute.equal(rows["status"], "ok").to_numpy()
        if bought.any():
            keys = np.column_stack([rows[name].to_numpy()[bought] for name in ("key_hi", "key_lo")])
            yield path, keys.astype(np.uint64), rows["ordinal"].to_numpy()[bought]


def read_columns(context: Context, path: str, names: list[str]) -> pa.Table:
    """These columns of a shard's rows, as far as the file has them."""
    with context.store.open(path) as source:
        schema = pa.ipc.open_file(source).schema
        source.seek(0)
        wanted = [schema.get_field_index(name) for name in names if name in schema.names]
        return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=wanted)).read_all()
