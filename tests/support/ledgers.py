"""Ledger files of a root, made up entry by entry."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq

from lowtide.money import product
from lowtide.protocols import Store
from lowtide.schemas import LEDGER

_numbers = count(1)


def at(day: int, hour: int = 0, month: int = 11) -> datetime:
    """A time in 2026, in UTC."""
    return datetime(2026, month, day, hour, tzinfo=UTC)


def entry(kind: str = "actual", /, **values: object) -> dict[str, object]:
    """A row of the ledger: tokens at a millionth of a dollar, a batch of 20 November, unless the values say otherwise.

    The amount is quantity times price unless it is given.
    """
    row: dict[str, object] = {
        "entry_id": f"entry-{next(_numbers)}",
        "at": at(20, 5),
        "run_id": "run-1",
        "kind": kind,
        "scope": "shard",
        "shard": 1,
        "attempt": 1,
        "backend": "bedrock",
        "provider": "aws",
        "region": "eu-west-1",
        "model": "amazon.nova-lite-v1:0",
        "batch_id": "arn:batch/1",
        "token_type": "input",
        "quantity": 1_000,
        "unit": "token",
        "unit_price": Decimal("0.000001"),
        "currency": "USD",
        "price_id": "nova batch",
        "price_source": "a list",
        "realtime_amount": None,
        "period_start": at(20, 1),
        "period_end": at(20, 4),
        "tags": {"team": "support"},
        **values,
    }
    if row.get("amount") is None:
        price, quantity = row["unit_price"], row["quantity"]
        assert isinstance(price, Decimal)
        assert isinstance(quantity, int)
        row["amount"] = product(price, quantity)
    tags = row["tags"]
    row["tags"] = list(tags.items()) if isinstance(tags, Mapping) else tags
    return row


def path_of(name: str, job: str = "tickets", window: str = "2026-11") -> str:
    """Where a ledger file lies."""
    return f"tables/ledger/job={job}/window={window}/{name}.parquet"


def write_ledger(
    store: Store, rows: Sequence[Mapping[str, object]], path: str | None = None, schema: pa.Schema = LEDGER
) -> str:
    """Put a ledger file into the root; returns its path."""
    path = path or path_of("run-1")
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), out)
    store.write(path, out.getvalue())
    return path
