"""The ledgers of a root, read for a month of spending: streamed, and added up as far as spending cares."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from lowtide.billing.reading import UNPRICED, WHEN, Entries, Selection, read_entries
from lowtide.billing.spend import LedgerSum, Month
from lowtide.protocols import Store
from lowtide.schemas import MONEY

_KEYS = ("run_id", "kind", "waste", "token_type", "currency")
_COLUMNS = (*_KEYS, WHEN, "quantity", "amount", "realtime_amount", "price_id", "tags")


def read_month(store: Store, month: Month) -> Iterator[LedgerSum]:
    """The month's entries of every ledger under the root, added up where they are alike. Memory holds one batch.

    An entry counts when its batch was submitted, as in the account of the caps. Raises StoreError for a broken file.
    """
    for entries in read_entries(store, _COLUMNS, Selection(since=month.start, until=month.end)):
        tags = _tags(entries)
        for row in _summed(entries):
            yield _line(row, entries.file.job, tags)


def _tags(entries: Entries) -> tuple[tuple[str, str], ...]:
    """A ledger is one run's, and all its lines have that run's tags."""
    [first] = entries.rows["tags"].slice(0, 1).to_pylist()
    return tuple((str(name), str(value)) for name, value in first or ())


def _summed(entries: Entries) -> list[dict[str, object]]:
    rows = entries.rows
    nothing = pc.equal(pc.fill_null(rows["amount"], pa.scalar(Decimal(0), MONEY)), pa.scalar(Decimal(0), MONEY))
    unpriced = pc.and_(pc.fill_null(pc.ends_with(rows["price_id"], UNPRICED), False), nothing)
    columns = {name: rows[name] for name in (*_KEYS, "quantity", "amount", "realtime_amount")}
    columns |= {
        "day": rows[WHEN].cast(pa.date32()),
        "unpriced": unpriced.cast(pa.int64()),
        "compared": pc.is_valid(rows["realtime_amount"]),
    }
    grouped = pa.table(columns).group_by([*_KEYS, "day", "compared"], use_threads=False)
    sums = [(name, "sum") for name in ("quantity", "amount", "realtime_amount", "unpriced")]
    found: list[dict[str, object]] = grouped.aggregate(sums).to_pylist()
    return found


def _line(row: dict[str, object], job: str, tags: tuple[tuple[str, str], ...]) -> LedgerSum:
    def text(name: str) -> str:
        return str(row[name] or "")

    def integer(name: str) -> int:
        value = row[f"{name}_sum"]
        return value if isinstance(value, int) else 0

    amount, realtime, day = row["amount_sum"], row["realtime_amount_sum"], row["day"]
    return LedgerSum(
        job=job,
        run_id=text("run_id"),
        day=day if isinstance(day, date) else date.min,
        kind=text("kind"),
        waste=text("waste"),
        token_type=text("token_type"),
        quantity=integer("quantity"),
        amount=amount if isinstance(amount, Decimal) else Decimal(0),
        realtime=realtime if isinstance(realtime, Decimal) else None,
        currency=text("currency") or "USD",
        unpriced=integer("unpriced"),
        tags=tags,
    )
