"""A provider's bill against the ledgers of a root, and what was billed written beside them.

A `billed` entry says what a line of a bill charges for an `actual` entry: `price_source` names the bill
(`bill aws 123456789012 2026-11`), `price_id` the line (`bill line <hash>`, its numbers left out), and the other columns
are those of the entry. A bill may come again with other numbers; `correction` entries then hold the difference, so that
`billed` and `correction` together are what the latest version says. Nothing that is written is ever changed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from lowtide import money
from lowtide.billing.bill import BATCH, ON_DEMAND, Bill, BillError, BillLine
from lowtide.billing.matching import Comparison, Kind, Span, Spent, match
from lowtide.billing.reading import Selection, read_entries
from lowtide.errors import StoreError
from lowtide.protocols import Store

TOKEN_TYPES = frozenset({"input", "output", "cached_input", "cache_write", "reasoning"})

_COLUMNS = (
    "entry_id",
    "run_id",
    "kind",
    "waste",
    "shard",
    "attempt",
    "backend",
    "provider",
    "region",
    "model",
    "batch_id",
    "token_type",
    "quantity",
    "unit_price",
    "amount",
    "price_id",
    "price_source",
    "period_start",
    "period_end",
    "tags",
)
_KINDS = pa.array(["actual", "billed", "correction"])
BILL_LINE = "bill line "
_BILLED = re.compile(r"(?P<run>.+)\.billed-(?P<number>[0-9]{6})\.parquet")

EntryKey = tuple[str, str, str, int, int, str, str, str]
"""Job, window, run, shard, attempt, batch, token type, waste: what an actual entry and what was billed for it share."""

LineKey = tuple[str, str]
"""A bill's name and a line's identity."""


@dataclass(slots=True)
class Booked:
    """What the ledger holds as billed for one entry by one line of a bill: so many tokens and steps of 1e-12 USD.

    `spent` is the entry, `start` and `end` are the line's time. `entries` counts how many entries say so.
    """

    spent: Spent
    start: datetime
    end: datetime
    quantity: int = 0
    steps: int = 0
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Looked:
    """What the ledger was compared with, and the number of the last file of billed entries that each run had then."""

    lines: tuple[BillLine, ...]
    providers: frozenset[str]
    accounts: frozenset[str]
    files: Mapping[tuple[str, str, str], int]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How bills and ledger compare. `unknown` lines are of usage and could not be understood, `charges` are no usage.

    `elsewhere` counts the ledger's batches in accounts that have no line on these bills; they were left out. `read` and
    `passed_over` count the bills' lines, and those of them that are for other services.
    """

    bills: tuple[str, ...]
    span: Span
    comparisons: tuple[Comparison, ...]
    unknown: tuple[BillLine, ...]
    charges: tuple[BillLine, ...]
    read: int
    passed_over: int
    elsewhere: int
    scopes: frozenset[str]
    booked: Mapping[LineKey, Mapping[EntryKey, Booked]]
    looked: Looked

    def of_kind(self, *kinds: Kind) -> list[Comparison]:
        """The comparisons of these kinds."""
        return [found for found in self.comparisons if found.kind in kinds]

    @property
    def tokens(self) -> int:
        """Billed, less what the ledger has."""
        return sum(found.tokens for found in self.comparisons)

    @property
    def usd(self) -> Decimal:
        """Billed, less what the ledger has."""
        return money.total(found.usd for found in self.comparisons)

    @property
    def billed_usd(self) -> Decimal:
        """What the lines that were compared charge."""
        return money.total(found.line.cost for found in self.comparisons if found.line)

    def is_clean(self, tolerance: Decimal) -> bool:
        """Whether no line differs from the ledger, and none is unknown, by more than so many USD."""
        drifted = [found.usd for found in self.comparisons if found.kind != "equal"]
        doubtful = [line.cost for line in self.unknown]
        # Without a tolerance a token is too much, even one that costs nothing.
        return not any(not tolerance or abs(usd) > tolerance for usd in (*drifted, *doubtful))


def reconcile(
    store: Store, bills: Sequence[Bill], *, since: date | None = None, until: date | None = None
) -> Reconciliation:
    """Compare bills, read as one, with all ledgers of the root. Writes nothing.

    Lines of days before `since`, or from `until` on, are left out, and batches that reach beyond are not missed. Holds
    the lines for tokens and the entries of their days; the rest is streamed. Raises BillError and StoreError.
    """
    lines: list[BillLine] = []
    charges: list[BillLine] = []
    unknown: list[BillLine] = []
    for bill in bills:
        for line in bill.lines():
            if (since and line.last_day < since) or (until and line.first_day >= until):
                continue
            (charges if line.charge else unknown if line.unknown else lines).append(line)
    counts = [bill.counts for bill in bills]
    firsts = [count.first_day for count in counts if count.first_day]
    lasts = [count.last_day for count in counts if count.last_day]
    if not firsts or not lasts:
        raise BillError(f"{', '.join(bill.name for bill in bills)}: holds no lines; export the bill again")
    span = Span(max(min(firsts), since or date.min), min(max(lasts), until - timedelta(days=1) if until else date.max))
    scopes = frozenset(scope for count in counts for scope in count.scopes)
    providers = frozenset(name for count in counts for name in count.providers)
    ledger = _read_ledger(store, span, providers, scopes)
    accounts = frozenset(name for count in counts for name in count.accounts)
    here = [spent for spent in ledger.spent.values() if not spent.account or accounts & {"", spent.account}]
    return Reconciliation(
        bills=tuple(bill.name for bill in bills),
        span=span,
        comparisons=tuple(match(lines, (spent for spent in here if spent.quantity), span)),
        unknown=tuple(unknown),
        charges=tuple(charges),
        read=sum(count.read for count in counts),
        passed_over=sum(count.passed_over for count in counts),
        elsewhere=len({spent.batch_id for spent in ledger.spent.values()} - {spent.batch_id for spent in here}),
        scopes=scopes,
        booked=ledger.booked,
        looked=Looked(tuple(lines), providers, accounts, ledger.files),
    )


def compared_again(store: Store, found: Reconciliation) -> Reconciliation:
    """The same lines compared with what the ledgers hold now."""
    looked = found.looked
    ledger = _read_ledger(store, found.span, looked.providers, found.scopes)
    here = [spent for spent in ledger.spent.values() if not spent.account or looked.accounts & {"", spent.account}]
    return replace(
        found,
        comparisons=tuple(match(looked.lines, (spent for spent in here if spent.quantity), found.span)),
        booked=ledger.booked,
        looked=replace(looked, files=ledger.files),
    )


@dataclass(slots=True)
class _Ledger:
    spent: dict[EntryKey, Spent] = field(default_factory=dict)
    booked: dict[LineKey, dict[EntryKey, Booked]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[tuple[str, str, str], int] = field(default_factory=dict)


def _read_ledger(store: Store, span: Span, providers: frozenset[str], scopes: frozenset[str]) -> _Ledger:
    """The span's entries as far as other bills do not have them, and what these bills were booked for."""
    ledger = _Ledger()
    elsewhere: dict[EntryKey, int] = defaultdict(int)
    for found in read_entries(store, _COLUMNS, Selection()):
        if numbered := _BILLED.fullmatch(found.file.path.rpartition("/")[2]):
            run = (found.file.job, found.file.window, numbered["run"])
            ledger.files[run] = max(ledger.files.get(run, 0), int(numbered["number"]))
        rows = found.rows.filter(pc.is_in(found.rows["kind"], _KINDS))
        rows = rows.filter(pc.is_in(rows["provider"], pa.array(sorted(providers))))
        for row in rows.to_pylist():
            if row["token_type"] not in TOKEN_TYPES:
                continue
            spent = _spent(found.file.job, found.file.window, row)
            key = entry_key(spent)
            if row["kind"] == "actual":
                if spent.quantity and spent.start <= span.last and spent.end + timedelta(days=1) >= span.first:
                    ledger.spent[key] = spent
            elif row["price_source"] in scopes:
                _book(ledger, spent, row)
            else:
                elsewhere[key] += row["quantity"]
    for key, quantity in elsewhere.items():
        if (known := ledger.spent.get(key)) is not None:
            ledger.spent[key] = replace(known, quantity=max(known.quantity - quantity, 0))
    return ledger


def _book(ledger: _Ledger, spent: Spent, row: Mapping[str, object]) -> None:
    start, end = row["period_start"], row["period_end"]
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        raise StoreError(f"ledger entry {spent.entry_id!r}: kind {row['kind']!r} needs period_start and period_end")
    line = (str(row["price_source"]), str(row["price_id"]).removeprefix(BILL_LINE))
    booked = ledger.booked[line].setdefault(entry_key(spent), Booked(spent, start, end))
    booked.quantity += spent.quantity
    booked.steps += money.steps(Decimal(str(row["amount"])))
    booked.entries += 1


def _spent(job: str, window: str, row: Mapping[str, object]) -> Spent:
    batch, backend = str(row["batch_id"] or ""), str(row["backend"])
    start = row["period_start"] if isinstance(row["period_start"], datetime) else datetime.fromtimestamp(0, UTC)
    end = row["period_end"] if isinstance(row["period_end"], datetime) else start
    tags = row["tags"] if isinstance(row["tags"], list) else []
    alone = backend == "realtime" or batch.startswith("ondemand/")
    arn = batch.split(":")
    return Spent(
        entry_id=str(row["entry_id"]),
        job=job,
        window=window,
        run_id=str(row["run_id"]),
        waste=str(row["waste"] or ""),
        shard=int(str(row["shard"] or 0)),
        attempt=int(str(row["attempt"] or 0)),
        backend=backend,
        provider=str(row["provider"]),
        region=str(row["region"] or ""),
        model=str(row["model"]),
        batch_id=batch,
        token_type=str(row["token_type"]),
        mode=ON_DEMAND if alone else BATCH,
        quantity=int(str(row["quantity"])),
        unit_price=Decimal(str(row["unit_price"] or 0)),
        start=start.astimezone(UTC).date(),
        end=max(start, end).astimezone(UTC).date(),
        tags=dict(tags),
        account=arn[4] if arn[0] == "arn" and len(arn) > 4 else "",
    )


def entry_key(spent: Spent) -> EntryKey:
    place = (spent.job, spent.window, spent.run_id, spent.shard, spent.attempt)
    return (*place, spent.batch_id, spent.token_type, spent.waste)
