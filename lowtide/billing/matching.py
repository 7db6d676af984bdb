"""Which of the ledger's entries a bill's lines are for. Pure: no files, and the same input gives the same answer.

An entry may be billed on any day of its batch's time at the provider, or on the day after. Where that leaves a choice,
whatever is equal is matched first, so that a line which was changed does not push its difference onto its neighbours:

1. If everything of a model and kind of token can be matched without a remainder, it is.
2. Else lines of one day are matched with the entries of all batches that were submitted on it, or ended on it, or the
   day before, if their sums are equal; where a day has several lines, then single lines with single batches.
3. What is left is filled up day by day, from the batches whose time is over first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal

from lowtide import money
from lowtide.billing.bill import BillLine, base_model, fold_region, fold_tag

Kind = Literal["equal", "changed", "price", "missing", "extra"]

ROUNDING = Decimal("0.000000001")
"""USD by which a line may differ from tokens times price: bills round to ten decimals and more."""

LAG = timedelta(days=1)
"""So long after a batch's end its usage may still come onto a bill."""

_SOLD_AS = {"reasoning": "output"}


@dataclass(frozen=True, slots=True)
class Spent:
    """One `actual` entry of the ledger, as far as no other bill has it. `quantity` in tokens, `unit_price` in USD.

    `start` and `end` are the days (UTC) of the batch. `mode` is `batch` or `on_demand`. `account` is the provider's
    account where the batch's id tells it.
    """

    entry_id: str
    job: str
    window: str
    run_id: str
    waste: str
    shard: int
    attempt: int
    backend: str
    provider: str
    region: str
    model: str
    batch_id: str
    token_type: str
    mode: str
    quantity: int
    unit_price: Decimal
    start: date
    end: date
    tags: Mapping[str, str]
    account: str = ""

    @property
    def billed_as(self) -> str:
        """The kind of token on a bill: reasoning is sold as output."""
        return _SOLD_AS.get(self.token_type, self.token_type)


@dataclass(frozen=True, slots=True)
class Share:
    """So many tokens of an entry."""

    spent: Spent
    quantity: int

    @property
    def usd(self) -> Decimal:
        """What the ledger says that they cost."""
        return money.product(self.spent.unit_price, self.quantity)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A line of the bill with the ledger's tokens for it, or, without a line, tokens that are on no line."""

    kind: Kind
    line: BillLine | None
    shares: tuple[Share, ...]

    @property
    def tokens(self) -> int:
        """Billed, less what the ledger has."""
        return (self.line.quantity if self.line else 0) - sum(share.quantity for share in self.shares)

    @property
    def usd(self) -> Decimal:
        """Billed, less what the ledger has."""
        billed = [self.line.cost] if self.line else []
        return money.total([*billed, *(share.usd.copy_negate() for share in self.shares)])


@dataclass(frozen=True, slots=True)
class Span:
    """Days, the first and the last."""

    first: date
    last: date

    def covers(self, spent: Spent) -> bool:
        """Whether the batch lies in it wholly, so that its usage has to be on the bill."""
        return self.first <= spent.start and spent.end <= self.last


def match(lines: Iterable[BillLine], ledger: Iterable[Spent], span: Span) -> list[Comparison]:
    """Every line once, in the bill's order, then what is missing on the bill, by day.

    Entries that lie only in part within `span` may be matched, and are not missed. Lines are of usage, and understood.
    """
    groups: dict[tuple[str, str, str], _Group] = defaultdict(_Group)
    own_profiles = set()
    for spent in ledger:
        model = base_model(spent.model)
        if model.startswith("arn:"):
            own_profiles.add(model)
        item = _Item(spent, spent.quantity, wanted=span.covers(spent))
        groups[spent.provider, model, spent.billed_as].add(item)
    for line in lines:
        model = line.resource if line.resource in own_profiles else line.model
        groups[line.provider, model, line.token_type].charges.append(_Charge(line, line.quantity))
    found = [comparison for _, group in sorted(groups.items()) for comparison in group.settle()]
    return sorted(found, key=_order)


def _order(found: Comparison) -> tuple[object, ...]:
    if found.line is not None:
        return (0, found.line.file, found.line.row)
    spent = found.shares[0].spent
    return (1, spent.end.isoformat(), spent.model, spent.token_type, spent.run_id, spent.shard)


@dataclass(slots=True)
class _Item:
    """A batch's tokens of one kind, whatever became of them, as far as they are not matched."""

    first: Spent
    left: int
    wanted: bool
    entries: list[Spent] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    region: str = ""
    whole: int = 0
    last_taker: _Charge | None = None

    def __post_init__(self) -> None:
        self.entries.append(self.first)
        self.whole = self.left
        self.tags = {fold_tag(name): value for name, value in self.first.tags.items()}
        self.region = fold_region(self.first.region)

    @property
    def latest(self) -> date:
        return self.first.end + LAG

    def absorb(self, other: _Item) -> None:
        self.entries += other.entries
        self.left += other.left
        self.whole += other.whole

    def take(self, quantity: int) -> Iterator[Share]:
        """Take so many tokens, from one entry after the other."""
        skip, self.left = self.whole - self.left, self.left - quantity
        for spent in self.entries:
            here = min(max(spent.quantity - skip, 0), quantity)
            skip = max(skip - spent.quantity, 0)
            if here:
                quantity -= here
                yield Share(spent, here)


@dataclass(slots=True)
class _Charge:
    """A line as far as it is not matched."""

    line: BillLine
    left: int
    settled: bool = False
    shares: list[Share] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    region: str = ""

    def __post_init__(self) -> None:
        self.tags = {fold_tag(name): value for name, value in self.line.tags.items()}
        self.region = fold_region(self.line.region)

    def about(self, item: _Item) -> bool:
        """Whether it may be for this batch, its day left out: whatever both of them say is the same."""
        spent, line = item.first, self.line
        return (
            line.mode in ("", spent.mode)
            and (not self.region or not item.region or self.region == item.region)
            and (not spent.account or line.sub_account in ("", spent.account))
            and all(item.tags.get(name, value) == value for name, value in self.tags.items())
        )

    def fits(self, item: _Item) -> bool:
        """The same, its day included."""
        return self.line.first_day <= item.latest and item.first.start <= self.line.last_day and self.about(item)

    def pay(self, item: _Item) -> None:
        """Match as much as both have left."""
        quantity = min(self.left, item.left)
        if quantity:
            self.shares += item.take(quantity)
            self.left -= quantity
            item.last_taker = self


class _Group:
    """All lines and batches of one provider, model and kind of token."""

    def __init__(self) -> None:
        self.charges: list[_Charge] = []
        self._items: dict[tuple[object, ...], _Item] = {}

    def add(self, item: _Item) -> None:
        """Put an entry with those of its batch."""
        spent = item.first
        key = (spent.job, spent.window, spent.run_id, spent.shard, spent.attempt, spent.batch_id)
        if key in self._items:
            self._items[key].absorb(item)
        else:
            self._items[key] = item

    def settle(self) -> Iterator[Comparison]:
        items = sorted(self._items.values(), key=lambda item: (item.latest, not item.wanted, item.first.entry_id))
        known = {name for item in items for name in item.tags}
        for charge in self.charges:
            # Tags that no entry has tell nothing apart.
            charge.tags = {name: value for name, value in charge.tags.items() if name in known}
        charges = sorted(self.charges, key=_strictness)
        if not _fill_wholly(charges, items):
            _fill_equals(charges, items)
            _fill(charges, items)
        yield from _compared(charges, items)


def _strictness(charge: _Charge) -> tuple[object, ...]:
    """Lines that say more choose first, then those of earlier days."""
    line = charge.line
    says = len(charge.tags) * 4 + bool(charge.region) * 2 + bool(line.mode)
    return (-says, line.last_day, line.first_day, line.file, line.row)


def _fill(charges: Sequence[_Charge], items: Sequence[_Item]) -> None:
    """Match day by day, from the batches whose time is over first: as much as can be, where lines are as strict."""
    for charge in charges:
        for item in items:
            if not charge.left:
                break
            if item.left and charge.fits(item):
                charge.pay(item)


def _fill_wholly(charges: Sequence[_Charge], items: Sequence[_Item]) -> bool:
    """Match all, or nothing."""
    billed = sum(charge.left for charge in charges)
    if not sum(item.left for item in items if item.wanted) <= billed <= sum(item.left for item in items):
        return False
    _fill(charges, items)
    if not any(charge.left for charge in charges) and not any(item.left for item in items if item.wanted):
        return True
    for charge in charges:
        charge.left = charge.line.quantity
        charge.shares.clear()
    for item in items:
        item.left, item.last_taker = item.whole, None
    return False


_HOMES: tuple[Callable[[Spent], date], ...] = (
    lambda spent: spent.start,
    lambda spent: spent.end,
    lambda spent: spent.end + LAG,
)


def _fill_equals(charges: Sequence[_Charge], items: Sequence[_Item]) -> None:
    """Match what is equal: the lines of a day with the batches of a day, then a line with a batch."""
    alike: dict[tuple[object, ...], list[_Charge]] = defaultdict(list)
    for charge in charges:
        line, tags = charge.line, tuple(sorted(charge.tags.items()))
        alike[line.first_day, line.last_day, charge.region, line.mode, line.sub_account, tags].append(charge)
    for home in _HOMES:
        for wanted_only in (True, False):
            for some in alike.values():
                _fill_if_equal(some, _at_home(some[0], items, home, wanted_only=wanted_only))
    for charge in (charge for some in alike.values() if len(some) > 1 for charge in some if charge.left):
        equal = (item for item in items if item.left == item.whole == charge.left and charge.fits(item))
        if item := next(equal, None):
            charge.pay(item)
            charge.settled = True


def _at_home(
    charge: _Charge, items: Sequence[_Item], home: Callable[[Spent], date], *, wanted_only: bool
) -> list[_Item]:
    first, last = charge.line.first_day, charge.line.last_day
    return [
        item
        for item in items
        if item.left == item.whole
        and first <= home(item.first) <= last
        and (item.wanted or not wanted_only)
        and charge.about(item)
    ]


def _fill_if_equal(charges: Sequence[_Charge], items: Sequence[_Item]) -> None:
    billed = sum(charge.left for charge in charges)
    if billed and billed == sum(item.left for item in items):
        _fill(charges, items)
        for charge in charges:
            charge.settled = True


def _compared(charges: Sequence[_Charge], items: Sequence[_Item]) -> Iterator[Comparison]:
    """What was matched, and the rest, which is the difference of a line that has some of it, or could have had it."""
    short: dict[int, list[Share]] = defaultdict(list)
    missing: dict[tuple[object, ...], list[Share]] = defaultdict(list)
    for item in items:
        if not (item.left and item.wanted):
            continue
        spent = item.first
        tags = tuple(sorted(item.tags.items()))
        open_lines = (charge for charge in charges if charge.shares and not charge.settled and charge.fits(item))
        taker = item.last_taker or next(open_lines, None)
        where = (
            short[id(taker)]
            if taker
            else missing[spent.end, spent.region, spent.model, spent.billed_as, spent.mode, tags]
        )
        where += item.take(item.left)
    for charge in charges:
        shares = (*charge.shares, *short.get(id(charge), ()))
        found = Comparison("equal", charge.line, shares)
        if charge.line.quantity and not shares:
            yield Comparison("extra", charge.line, ())
        elif found.tokens:
            yield Comparison("changed", charge.line, shares)
        elif abs(found.usd) > ROUNDING:
            yield Comparison("price", charge.line, shares)
        else:
            yield found
    for lost in missing.values():
        yield Comparison("missing", None, tuple(lost))
