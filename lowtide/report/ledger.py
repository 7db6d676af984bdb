"""What the ledger says: what was processed, for which purpose, at which price, shard by shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from lowtide.billing.reading import UNPRICED
from lowtide.money import total
from lowtide.report.parquet import Batch, TableReader

TOKEN_TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")
COMPUTE = "compute_second"
_KEYS = ("kind", "waste", "token_type", "currency", "unit", "backend", "model")
_COLUMNS = (*_KEYS, "shard", "quantity", "amount", "price_id", "realtime_amount")
_PRICE_ID = 300
_NAME, _CURRENCY = 100, 8
_ROWS = 8_192
_GROUPS = 2_000
_FURTHER = "(further)"
SAVED = "saved"
"""The kind of entries for what was not bought, since its answers were there already."""
_NOTHING = Decimal(0)


def _no_money() -> dict[str, Decimal]:
    return {}


@dataclass(slots=True)
class Use:
    """So much of something, and what it cost, by currency. `entries` counts ledger rows.

    `unknown` counts those of them whose price is not known: they are not in `cost`.
    """

    entries: int = 0
    quantity: int = 0
    cost: dict[str, Decimal] = field(default_factory=_no_money)
    unit: str = ""
    unknown: int = 0

    def add(
        self, entries: int, quantity: int, amount: Decimal, currency: str, unit: str = "", *, known: bool = True
    ) -> None:
        """Count some more."""
        self.entries += entries
        self.quantity += quantity
        self.unit = self.unit or unit
        if not known:
            self.unknown += entries
        elif amount or currency not in self.cost:
            self.cost[currency] = total((self.cost.get(currency, _NOTHING), amount))


@dataclass(slots=True)
class ShardUse:
    """What one shard used, over all its attempts. Waste stands apart from the useful tokens."""

    useful: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wasted: int = 0
    cost: dict[str, Decimal] = field(default_factory=_no_money)
    wasted_cost: dict[str, Decimal] = field(default_factory=_no_money)
    unknown: int = 0

    @property
    def tokens(self) -> int:
        """All tokens that the provider processed."""
        return sum(self.useful.values()) + self.wasted

    def merged(self, other: ShardUse) -> ShardUse:
        """Both together."""
        both = ShardUse(wasted=self.wasted + other.wasted, unknown=self.unknown + other.unknown)
        for part in (self, other):
            for name, quantity in part.useful.items():
                both.useful[name] += quantity
            for into, source in ((both.cost, part.cost), (both.wasted_cost, part.wasted_cost)):
                for currency, amount in source.items():
                    into[currency] = total((into.get(currency, _NOTHING), amount))
        return both


@dataclass(slots=True)
class Ledger:
    """The ledger in numbers. Only `kinds` covers more than the entries of kind `actual`, which are the bill.

    `shards` has None for what belongs to no shard; `uses` goes by token type and waste ("" for what was of use).
    `saved` is by token type what the cache spared the run: no part of the bill. `realtime` is what the same tokens
    would have cost in real time, in USD; None unless it is known of all of them.
    """

    entries: int = 0
    kinds: dict[str, Use] = field(default_factory=dict)
    uses: dict[tuple[str, str], Use] = field(default_factory=dict)
    shards: dict[int | None, ShardUse] = field(default_factory=dict)
    models: dict[tuple[str, str], Use] = field(default_factory=dict)
    saved: dict[str, Use] = field(default_factory=dict)
    realtime: Decimal | None = None
    uncompared: int = 0

    @property
    def unknown(self) -> int:
        """Entries of the bill whose price is not known."""
        return self.kinds["actual"].unknown if "actual" in self.kinds else 0

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

    def seconds(self, *, wasted: bool | None = None) -> int:
        """Machine time in the same way."""
        return sum(
            use.quantity
            for (token_type, waste), use in self.uses.items()
            if token_type == COMPUTE and (wasted is None or wasted == bool(waste))
        )

    @property
    def by_time(self) -> bool:
        """Whether machine time is worth a word: it was paid, or some of it went into nothing."""
        paid = any(any(use.cost.values()) for (token_type, _), use in self.uses.items() if token_type == COMPUTE)
        return paid or self.seconds(wasted=True) > 0


def read_ledger(stream: BinaryIO, progress: Callable[[int, int], None] | None = None, *, priced: bool = True) -> Ledger:
    """Read the table once, batch by batch. `progress` gets rows read and rows in all.

    Without `priced` no price is known, and no amount of 0 is taken at its word.
    """
    table = TableReader("ledger", stream)
    ledger, read = Ledger(entries=table.rows), 0
    for batch in table.batches(_COLUMNS, _ROWS):
        for row in _summed(batch):
            _enter(ledger, row, priced=priced)
        read += batch.rows
        if progress:
            progress(read, table.rows)
    if ledger.uncompared:
        ledger.realtime = None
    return ledger


def _summed(batch: Batch) -> list[dict[str, object]]:
    columns = {name: batch.text(name, _NAME) for name in _KEYS}
    columns |= {name: batch.integer(name) for name in ("shard", "quantity")}
    columns |= {name: batch.amount(name) for name in ("amount", "realtime_amount")}
    columns["unpriced"] = pc.fill_null(pc.ends_with(batch.text("price_id", _PRICE_ID), UNPRICED), False)
    grouped = pa.table(columns).group_by([*_KEYS, "shard", "unpriced"], use_threads=False)
    sums = [(name, "sum") for name in ("quantity", "amount", "realtime_amount")]
    unknown = ("realtime_amount", "count", pc.CountOptions(mode="only_null"))
    rows: list[dict[str, object]] = grouped.aggregate([*sums, unknown, ([], "count_all")]).to_pylist()
    return rows


def _enter(ledger: Ledger, row: dict[str, object], *, priced: bool) -> None:
    kind, waste, token_type, currency, unit, backend, model = (str(row[name] or "") for name in _KEYS)
    quantity, entries, shard = _integer(row["quantity_sum"]), _integer(row["count_all"]), row["shard"]
    amount = row["amount_sum"] if isinstance(row["amount_sum"], Decimal) else _NOTHING
    currency = currency[:_CURRENCY] or "USD"
    known = bool(amount) or (priced and not row["unpriced"])

    def count_in(use: Use, size: int = quantity) -> None:
        use.add(entries, size, amount, currency, unit, known=known)

    count_in(ledger.kinds.setdefault(_bounded(ledger.kinds, kind, _FURTHER), Use()))
    if kind == SAVED:
        count_in(ledger.saved.setdefault(_bounded(ledger.saved, token_type, _FURTHER), Use()))
    if kind != "actual":
        return
    count_in(ledger.uses.setdefault(_bounded(ledger.uses, (token_type, waste), (_FURTHER, waste and _FURTHER)), Use()))
    name = _bounded(ledger.models, (backend, model), (_FURTHER, ""))
    count_in(ledger.models.setdefault(name, Use()), quantity if token_type != COMPUTE else 0)
    compared = row["realtime_amount_sum"]
    ledger.uncompared += _integer(row["realtime_amount_count"])
    if isinstance(compared, Decimal) and currency == "USD":
        ledger.realtime = total((ledger.realtime or _NOTHING, compared))
    part = ledger.shards.setdefault(shard if isinstance(shard, int) else None, ShardUse())
    part.unknown += 0 if known else entries
    cost = part.wasted_cost if waste else part.cost
    cost[currency] = total((cost.get(currency, _NOTHING), amount))
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
