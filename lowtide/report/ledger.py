"""What the ledger says: what was processed, for which purpose, at which price, shard by shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import BinaryIO, TypeVar

import pyarrow as pa

from lowtide.report.parquet import TableReader
from lowtide.report.text import add

TOKEN_TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")
COMPUTE = "compute_second"
_KEYS = ("kind", "waste", "token_type", "currency", "unit", "backend", "model")
_COLUMNS = (*_KEYS, "shard", "quantity", "amount")
_NAME, _CURRENCY = 100, 8
_ROWS = 8_192
_GROUPS = 2_000
_FURTHER = "(further)"
_NOTHING = Decimal(0)


def _no_money() -> dict[str, Decimal]:
    return {}


@dataclass(slots=True)
class Use:
    """So much of something, and what it cost, by currency. `entries` counts ledger rows."""

    entries: int = 0
    quantity: int = 0
    cost: dict[str, Decimal] = field(default_factory=_no_money)
    unit: str = ""

    def add(self, entries: int, quantity: int, amount: Decimal, currency: str, unit: str = "") -> None:
        """Count some more."""
        self.entries += entries
        self.quantity += quantity
        self.unit = self.unit or unit
        if amount or currency not in self.cost:
            self.cost[currency] = add(self.cost.get(currency, _NOTHING), amount)


@dataclass(slots=True)
class ShardUse:
    """What one shard used, over all its attempts. Waste stands apart from the useful tokens."""

    useful: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wasted: int = 0
    cost: dict[str, Decimal] = field(default_factory=_no_money)
    wasted_cost: dict[str, Decimal] = field(default_factory=_no_money)

    @property
    def tokens(self) -> int:
        """All tokens that the provider processed."""
        return sum(self.useful.values()) + self.wasted

    def merged(self, other: ShardUse) -> ShardUse:
        """Both together."""
        both = ShardUse(wasted=self.wasted + other.wasted)
        for part in (self, other):
            for name, quantity in part.useful.items():
                both.useful[name] += quantity
            for into, source in ((both.cost, part.cost), (both.wasted_cost, part.wasted_cost)):
                for currency, amount in source.items():
                    into[currency] = add(into.get(currency, _NOTHING), amount)
        return both


@dataclass(slots=True)
class Ledger:
    """The ledger in numbers. Only `kinds` covers more than the entries of kind `actual`, which are the bill.

    `shards` has None for what belongs to no shard; `uses` goes by token type and waste ("" for what was of use).
    """

    entries: int = 0
    kinds: dict[str, Use] = field(default_factory=dict)
    uses: dict[tuple[str, str], Use] = field(default_factory=dict)
    shards: dict[int | None, ShardUse] = field(default_factory=dict)
    models: dict[tuple[str, str], Use] = field(default_factory=dict)

    @property
    def cost(self) -> dict[str, Decimal]:
        """What was charged, by currency."""
        return dict(self.kinds["actual"].cost) if "actual" in self.kinds else {}

    @property
    def wasted_cost(self) -> dict[str, Decimal]:
        """The part of it that bought nothing."""
        wasted = Use()
        for (_, waste), use in self.uses.items():
            for currency, amount in use.cost.items() if waste else ():
                wasted.add(0, 0, amount, currency)
        return wasted.cost

    def tokens(self, *, wasted: bool | None = None) -> int:
        """Tokens processed: all of them, or only the wasted or the useful ones."""
        return sum(
            use.quantity
            for (token_type, waste), use in self.uses.items()
            if token_type != COMPUTE and (wasted is None or wasted == bool(waste))
        )


def read_ledger(stream: BinaryIO, progress: Callable[[int, int], None] | None = None) -> Ledger:
    """Read the table once, batch by batch. `progress` gets rows read and rows in all."""
    table = TableReader("ledger", stream)
    ledger, read = Ledger(entries=table.rows), 0
    for batch in table.batches(_COLUMNS, _ROWS):
        columns = {name: batch.text(name, _NAME) for name in _KEYS}
        columns |= {name: batch.integer(name) for name in ("shard", "quantity")}
        columns["amount"] = batch.amount("amount")
        grouped = pa.table(columns).group_by([*_KEYS, "shard"], use_threads=False)
        summed = grouped.aggregate([("quantity", "sum"), ("amount", "sum"), ([], "count_all")])
        for row in summed.to_pylist():
            _enter(ledger, row)
        read += batch.rows
        if progress:
            progress(read, table.rows)
    return ledger


def _enter(ledger: Ledger, row: dict[str, object]) -> None:
    kind, waste, token_type, currency, unit, backend, model = (str(row[name] or "") for name in _KEYS)
    quantity, entries, shard = _integer(row["quantity_sum"]), _integer(row["count_all"]), row["shard"]
    amount = row["amount_sum"] if isinstance(row["amount_sum"], Decimal) else _NOTHING
    currency = currency[:_CURRENCY] or "USD"
    ledger.kinds.setdefault(_bounded(ledger.kinds, kind, _FURTHER), Use()).add(entries, quantity, amount, currency)
    if kind != "actual":
        return
    use = ledger.uses.setdefault(_bounded(ledger.uses, (token_type, waste), (_FURTHER, waste and _FURTHER)), Use())
    use.add(entries, quantity, amount, currency, unit)
    name = _bounded(ledger.models, (backend, model), (_FURTHER, ""))
    ledger.models.setdefault(name, Use()).add(entries, quantity if token_type != COMPUTE else 0, amount, currency)
    part = ledger.shards.setdefault(shard if isinstance(shard, int) else None, ShardUse())
    cost = part.wasted_cost if waste else part.cost
    cost[currency] = add(cost.get(currency, _NOTHING), amount)
    if token_type == COMPUTE:
        return
    if waste:
        part.wasted += quantity
    else:
        part.useful[token_type if token_type in TOKEN_TYPES else "other"] += quantity


Key = TypeVar("Key")


def _bounded(seen: Mapping[Key, Use], key: Key, further: Key) -> Key:
    return key if key in seen or len(seen) < _GROUPS else further


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
