"""Why rows of a published run have no answer: the most frequent reasons, out of the results."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.engine import Run, is_published
from lowtide.engine.publishing import results_path
from lowtide.refusals import by_cap
from lowtide.summary import FAILED, Summary

MOST = 3
_LINE = re.compile(r"^line [0-9]+: ")
_KEYS = ("status", "status_reason")
_ROWS = 16_384
_DIFFERENT = 1_000
"""Reasons that are told apart: where each row has one of its own, they are not worth more memory."""


class Reason(NamedTuple):
    """So many rows that ended in the same way."""

    rows: int
    status: str
    reason: str


def reasons_of(run: Run, summary: Summary) -> list[Reason]:
    """The most frequent reasons of rows that failed; of skipped ones too if all were, or if a budget was used up.

    [] if nothing is published. Reads two columns of the results, in bounded memory.
    """
    wanted = ("skipped",) if summary.unasked else (*FAILED, "skipped") if summary.over_budget else FAILED
    if not sum(summary.counts.get(status, 0) for status in wanted) or not is_published(run):
        return []
    store, found = run.context.store, Counter[tuple[str, str]]()
    with store.open(results_path(run.plan.job, run.plan.window)) as source:
        parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
        for batch in parquet.iter_batches(batch_size=_ROWS, columns=list(_KEYS)):
            counted = (
                pa.Table.from_batches([batch]).group_by(list(_KEYS), use_threads=False).aggregate([([], "count_all")])
            )
            for row in counted.to_pylist():
                key = (row["status"], by_cap(_LINE.sub("", row["status_reason"] or "")))
                if row["status"] in wanted:
                    found[key if key in found or len(found) < _DIFFERENT else (key[0], "other reasons")] += row[
                        "count_all"
                    ]
    return [Reason(rows, *key) for key, rows in found.most_common(MOST)]
