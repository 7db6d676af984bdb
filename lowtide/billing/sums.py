"""What the ledgers of a root add up to, by day, job, model and so on. Every sum is exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from lowtide import money
from lowtide.billing.reading import UNPRICED, WHEN, Entries, Selection, ledger_files, read_entries, tag_values
from lowtide.errors import ConfigError
from lowtide.protocols import Store

TOKEN_TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")
TAG = "tag:"
KEYS = ("day", "job", "model", "backend", "window", "run", "kind", "waste", "token")
"""What sums go by. Beside these, `tag:NAME`."""

_COLUMN = {
    "model": "model",
    "backend": "backend",
    "run": "run_id",
    "kind": "kind",
    "waste": "waste",
    "token": "token_type",
}
_READ = (
    WHEN, "kind", "waste", "token_type", "unit", "run_id", "currency", "price_id", "quantity", "amount",
    "realtime_amount",
)  # fmt: skip
_CURRENCY = "USD"
_NEVER_SUMMED = ("estimate", "reserved", "released")
"""Kinds that are plans and room in budgets, and no money that anybody has spent or spared."""


@dataclass(frozen=True, slots=True)
class Line:
    """The sums of the entries that have these values of the keys; None where an entry has no such value.

    `tokens` and `seconds` are what providers processed, at `amount`; `waste` and `waste_tokens` are the part of it that
    brought nothing. `realtime` is what it would have cost on demand, of those entries that say so, and
    `saved_realtime` the difference to what those were bought for; both are None where no entry says so, and
    `realtime_unknown` counts those that do not. `saved_cache` is what answers would have cost that were bought before.
    `billed` is what the provider's bill says, corrections of it included, None where no bill was compared; `drift` is
    what it says beyond the amount of the runs that it was compared with. `unpriced_tokens` have no known price, and so
    no amount.
    """

    keys: tuple[str | None, ...]
    currency: str
    entries: int
    tokens: Mapping[str, int]
    seconds: int
    amount: Decimal
    waste_tokens: int
    waste: Decimal
    realtime: Decimal | None
    saved_realtime: Decimal | None
    realtime_unknown: int
    saved_cache_tokens: int
    saved_cache: Decimal
    billed: Decimal | None
    drift: Decimal | None
    unpriced_tokens: int


@dataclass(frozen=True, slots=True)
class Sums:
    """`totals` has a line for each currency, over what was bought: with `kind` among the keys too, other kinds do not
    count into it. `files` were there to be read, before entries were selected.
    """

    by: tuple[str, ...]
    lines: tuple[Line, ...]
    totals: tuple[Line, ...]
    files: int


def check_keys(by: Sequence[str]) -> None:
    """Raises ConfigError for a key that there is not, and for one that is given twice."""
    for key in by:
        if key not in KEYS and not (key.startswith(TAG) and key != TAG):
            raise ConfigError(f"--by: found {key!r}; expected one of {', '.join(KEYS)}, or tag:NAME")
        if by.count(key) > 1:
            raise ConfigError(f"--by: {key} is given twice; give each key once")


def sum_ledger(store: Store, by: Sequence[str], selection: Selection) -> Sums:
    """Add up the selected entries of a root, in memory for the lines alone. Raises ConfigError and StoreError."""
    check_keys(by)
    columns = [*_READ, *dict.fromkeys(_COLUMN[key] for key in by if key in _COLUMN and _COLUMN[key] not in _READ)]
    columns += ["tags"] if any(key.startswith(TAG) for key in by) else []
    lines: dict[tuple[tuple[str | None, ...], str], _Adding] = {}
    totals: dict[str, _Adding] = {}
    for entries in read_entries(store, columns, selection):
        for row in _grouped(entries, by):
            kind, currency = str(row["kind"]), str(row["currency"] or _CURRENCY)
            if kind in _NEVER_SUMMED and "kind" not in by:
                continue
            keys = tuple(_text(row[f"by_{place}"]) for place in range(len(by)))
            line = lines.setdefault((keys, currency), _Adding())
            if "kind" in by:
                line.buy(row)
            else:
                line.add(kind, row)
            if kind not in _NEVER_SUMMED:
                totals.setdefault(currency, _Adding()).add(kind, row)
    ordered = sorted(lines, key=lambda found: ([(key is None, key or "") for key in found[0]], found[1]))
    return Sums(
        tuple(by),
        tuple(lines[found].line(*found) for found in ordered),
        tuple(totals[currency].line((), currency) for currency in sorted(totals)),
        sum(1 for _ in ledger_files(store, selection.jobs)),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _grouped(entries: Entries, by: Sequence[str]) -> list[dict[str, object]]:
    """A batch of entries, added up as far as they are alike in all that counts."""
    rows = entries.rows
    unpriced = pc.fill_null(pc.ends_with(rows["price_id"], UNPRICED), False)
    columns: dict[str, object] = {
        "kind": rows["kind"],
        "wasted": pc.is_valid(rows["waste"]),
        "token_type": rows["token_type"],
        "seconds": pc.fill_null(pc.equal(rows["unit"], "second"), False),
        "run_id": rows["run_id"],
        "currency": rows["currency"],
        "unpriced": pc.and_(unpriced, pc.equal(rows["amount"], pa.scalar(Decimal(0), rows["amount"].type))),
        "realtime_known": pc.is_valid(rows["realtime_amount"]),
        "quantity": rows["quantity"],
        "amount": rows["amount"],
        "realtime_amount": rows["realtime_amount"],
    }
    for place, key in enumerate(by):
        columns[f"by_{place}"] = _values(entries, key)
    alike = [name for name in columns if name not in ("quantity", "amount", "realtime_amount")]
    table = pa.table(columns).group_by(alike, use_threads=False)
    summed = table.aggregate([("quantity", "sum"), ("amount", "sum"), ("realtime_amount", "sum"), ([], "count_all")])
    found: list[dict[str, object]] = summed.to_pylist()
    return found


def _values(entries: Entries, key: str) -> object:
    rows = entries.rows
    if key == "day":
        return pc.strftime(rows[WHEN], "%Y-%m-%d")
    if key in ("job", "window"):
        return pa.repeat(entries.file.job if key == "job" else entries.file.window, len(rows))
    return tag_values(rows["tags"], key.removeprefix(TAG)) if key.startswith(TAG) else rows[_COLUMN[key]]


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _steps(value: object) -> int:
    return money.steps(value) if isinstance(value, Decimal) else 0


@dataclass(slots=True)
class _Bill:
    """One run's amount, and what it was billed; in steps of 1e-12."""

    amount: int = 0
    billed: int = 0
    compared: bool = False


@dataclass(slots=True)
class _Adding:
    """A line in the making. Money in steps of 1e-12, as whole numbers: they cannot be rounded."""

    entries: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    seconds: int = 0
    amount: int = 0
    waste_tokens: int = 0
    waste: int = 0
    realtime: int = 0
    realtime_paid: int = 0
    realtime_known: int = 0
    realtime_unknown: int = 0
    saved_cache_tokens: int = 0
    saved_cache: int = 0
    unpriced_tokens: int = 0
    bills: dict[object, _Bill] = field(default_factory=dict)

    def add(self, kind: str, row: Mapping[str, object]) -> None:
        """Count in entries that are alike, for what their kind stands for."""
        amount = _steps(row["amount_sum"])
        bill = self.bills.setdefault(row["run_id"], _Bill())
        match kind:
            case "actual":
                bill.amount += amount
                self.buy(row)
                return
            case "saved":
                self.saved_cache += amount
                self.saved_cache_tokens += _whole(row["quantity_sum"])
            case "billed" | "correction":
                bill.billed += amount
                bill.compared = True
        self.entries += _whole(row["count_all"])

    def buy(self, row: Mapping[str, object]) -> None:
        """Count in what was processed, and at which price."""
        entries, quantity, amount = _whole(row["count_all"]), _whole(row["quantity_sum"]), _steps(row["amount_sum"])
        self.entries += entries
        self.amount += amount
        tokens = 0 if row["seconds"] or row["token_type"] is None else quantity
        if row["seconds"]:
            self.seconds += quantity
        elif tokens:
            self.tokens[str(row["token_type"])] += tokens
        if row["wasted"]:
            self.waste += amount
            self.waste_tokens += tokens
        if row["unpriced"]:
            self.unpriced_tokens += tokens
        if row["realtime_known"]:
            self.realtime += _steps(row["realtime_amount_sum"])
            self.realtime_paid += amount
            self.realtime_known += entries
        else:
            self.realtime_unknown += entries

    def line(self, keys: tuple[str | None, ...], currency: str) -> Line:
        """The sums as they stand."""
        compared = [bill for bill in self.bills.values() if bill.compared]
        billed = sum(bill.billed for bill in compared)
        drift = billed - sum(bill.amount for bill in compared)
        saved = self.realtime - self.realtime_paid
        return Line(
            keys,
            currency,
            self.entries,
            {name: self.tokens[name] for name in (*TOKEN_TYPES, *sorted(set(self.tokens) - set(TOKEN_TYPES)))},
            self.seconds,
            money.amount_of(self.amount),
            self.waste_tokens,
            money.amount_of(self.waste),
            money.amount_of(self.realtime) if self.realtime_known else None,
            money.amount_of(saved) if self.realtime_known else None,
            self.realtime_unknown,
            self.saved_cache_tokens,
            money.amount_of(self.saved_cache),
            money.amount_of(billed) if compared else None,
            money.amount_of(drift) if compared else None,
            self.unpriced_tokens,
        )
