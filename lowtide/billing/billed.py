"""Writing down what bills say: `billed` entries for lines seen first, `correction` entries for restated ones."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lowtide import money
from lowtide.billing.matching import Comparison, Share, Span, Spent
from lowtide.billing.reconcile import (
    BILL_LINE,
    Booked,
    EntryKey,
    LineKey,
    Reconciliation,
    compared_again,
    entry_key,
)
from lowtide.errors import StoreError
from lowtide.protocols import Store
from lowtide.schemas import LEDGER

STEP = Decimal(1).scaleb(-money.SCALE)
_ROUNDS = 50
"""Times that the ledger is read again since somebody else was faster."""


@dataclass(frozen=True, slots=True)
class Written:
    """The entries that were added, or would be: `billed` for lines seen first, `corrections` for restated ones."""

    billed: int
    corrections: int
    files: tuple[str, ...]


def write_billed(store: Store, found: Reconciliation, now: datetime, *, dry_run: bool = False) -> Written:
    """Write what the bills say of the entries that they were matched with, as far as the ledger does not hold it yet.

    One new file for each run whose ledger it adds to; nothing if there is nothing new. The same bill at the same time
    from two machines is written once: a run's files are numbered, and whoever finds his number taken reads the ledger
    again and compares anew. Raises StoreError if that happens all the time.
    """
    files: list[str] = []
    kinds = {"billed": 0, "correction": 0}
    for _ in range(_ROUNDS):
        if _write(store, found, now, files, kinds, dry_run=dry_run):
            return Written(kinds["billed"], kinds["correction"], tuple(files))
        found = compared_again(store, found)
    raise StoreError(
        f"{store.uri}: others write billed entries all the time; run it again once they are done", store.uri
    )


def _write(
    store: Store, found: Reconciliation, now: datetime, files: list[str], kinds: dict[str, int], *, dry_run: bool
) -> bool:
    """Write one file for each run; False if somebody has written for one of them since the ledger was read."""
    by_run: dict[tuple[str, str, str], list[dict[str, object]]] = defaultdict(list)
    for new in _new_rows(found, now):
        by_run[new.spent.job, new.spent.window, new.spent.run_id].append(new.columns())
    fastest = True
    for (job, window, run_id), rows in sorted(by_run.items()):
        number = found.looked.files.get((job, window, run_id), 0) + 1
        path = f"tables/ledger/job={job}/window={window}/{run_id}.billed-{number:06}.parquet"
        if dry_run or store.put_if_absent(path, _parquet(rows)):
            files.append(path)
            for row in rows:
                kinds[str(row["kind"])] += 1
        else:
            fastest = False
    return fastest


def _parquet(rows: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=LEDGER), out, compression="zstd")
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class _New:
    """An entry to write: the difference between what a line says now and what is booked."""

    line: LineKey
    spent: Spent
    start: datetime
    end: datetime
    quantity: int
    steps: int
    before: int
    at: datetime

    def columns(self) -> dict[str, object]:
        spent, amount = self.spent, money.amount_of(self.steps)
        identity = (*self.line, *entry_key(spent), self.before, self.quantity, self.steps)
        return {
            "entry_id": hashlib.sha256("\0".join(map(str, identity)).encode()).hexdigest()[:32],
            "at": self.at,
            "run_id": spent.run_id,
            "kind": "correction" if self.before else "billed",
            "waste": spent.waste or None,
            "scope": "shard",
            "shard": spent.shard,
            "attempt": spent.attempt,
            "backend": spent.backend,
            "provider": spent.provider,
            "region": spent.region,
            "model": spent.model,
            "batch_id": spent.batch_id,
            "token_type": spent.token_type,
            "quantity": self.quantity,
            "unit": "token",
            # A difference has no price.
            "unit_price": (amount / self.quantity).quantize(STEP) if self.quantity and not self.before else None,
            "amount": amount,
            "currency": "USD",
            "price_id": BILL_LINE + self.line[1],
            "price_source": self.line[0],
            "period_start": self.start,
            "period_end": self.end,
            "tags": list(spent.tags.items()),
        }


def _new_rows(found: Reconciliation, now: datetime) -> Iterator[_New]:
    said = _said(found.comparisons)
    # What cannot be understood this time is no reason to take back what was.
    kept = {(line.scope, line.identity) for line in found.unknown}
    for key in sorted({*said, *found.booked} - kept):
        booked = found.booked.get(key, {})
        if key not in said and not any(_within(entry, found.span) for entry in booked.values()):
            continue
        for entry in sorted({*said.get(key, {}), *booked}):
            new, old = said.get(key, {}).get(entry), booked.get(entry)
            known = new or old
            quantity = (new.quantity if new else 0) - (old.quantity if old else 0)
            steps = (new.steps if new else 0) - (old.steps if old else 0)
            if known and (quantity or steps):
                before = old.entries if old else 0
                yield _New(key, known.spent, known.start, known.end, quantity, steps, before, now)


def _within(booked: Booked, span: Span) -> bool:
    return span.first <= booked.start.astimezone(UTC).date() <= span.last


def _said(comparisons: Iterable[Comparison]) -> dict[LineKey, dict[EntryKey, Booked]]:
    """What the lines charge, shared out exactly over the entries that they are for; lines that are alike together."""
    said: dict[LineKey, dict[EntryKey, Booked]] = defaultdict(dict)
    for comparison in comparisons:
        line, weights = comparison.line, _weights(comparison.shares)
        if line is None or not weights:
            continue
        by = np.array([quantity for _, quantity in weights.values()], dtype=np.int64)
        quantities = money.allocate(line.quantity, by).tolist()
        steps = money.allocate(money.steps(line.cost.quantize(STEP)), by).tolist()
        for (key, (spent, _)), quantity, amount in zip(weights.items(), quantities, steps, strict=True):
            booked = said[line.scope, line.identity].setdefault(key, Booked(spent, line.start, line.end))
            booked.quantity += quantity
            booked.steps += amount
    return said


def _weights(shares: Iterable[Share]) -> dict[EntryKey, tuple[Spent, int]]:
    found: dict[EntryKey, tuple[Spent, int]] = {}
    for share in shares:
        key = entry_key(share.spent)
        found[key] = (share.spent, found[key][1] + share.quantity if key in found else share.quantity)
    return found
