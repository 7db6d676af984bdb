"""What a provider's bill says, line by line, in the words of the ledger."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Protocol

from lowtide.errors import ConfigError

BATCH, ON_DEMAND = "batch", "on_demand"

PROVIDERS = frozenset({"aws", "azure"})
"""Those whose lines can be understood. What the ledger has of others is on no bill, and not missed there."""

_TICK = timedelta(microseconds=1)
_GEOGRAPHY = re.compile(r"(?:[a-z]{2}|us-gov|apac|global)\.(?=[a-z0-9]+\.)")
_FIRST_VERSION = re.compile(r"(?:-v1)?(?::\w+)*$")
_BARE_VERSION = re.compile(r"-\d+:\d+$")
_LATER_VERSION = re.compile(r"(-v(?!1\b)\d+)(?::\w+)+$")
_DATE = re.compile(r"-20\d\d-?\d\d-?\d\d(?=$|-v)")
_TAG_PREFIX = re.compile(r"^(?:resourcetags/)?(?:user[:_])?", re.IGNORECASE)
_NOT_IN_TAGS = re.compile(r"[^0-9a-z]")


class BillError(ConfigError):
    """A bill cannot be read; the message names its file, line and field, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class BillLine:
    """One line of a bill. Money in USD, `quantity` in tokens (rounded to whole ones), times in UTC, the end excluded.

    `row` is the line of a CSV file, or the row of a Parquet file, from 1. `account` is who gets the bill, `sub_account`
    who has used the service, and `billing_month` the first day of the billing period. `words` is what the provider
    calls the usage: a usage type or a meter. `model` is as `base_model` has it. `mode` is `batch`, `on_demand`, or the
    provider's word for another way to be served; "" where the bill does not say.

    `charge` is "" for usage, and else what kind of charge it is: a tax, a credit. `unknown` says why a line of usage
    cannot be understood; then model, token_type and quantity mean nothing.
    """

    file: str
    row: int
    provider: str
    account: str
    sub_account: str
    billing_month: date
    service: str
    start: datetime
    end: datetime
    region: str
    model: str
    token_type: str
    mode: str
    quantity: int
    cost: Decimal
    currency: str
    tags: Mapping[str, str]
    words: str
    operation: str
    resource: str
    description: str
    charge: str = ""
    unknown: str = ""

    @property
    def first_day(self) -> date:
        """The day (UTC) that it begins in."""
        return self.start.date()

    @property
    def last_day(self) -> date:
        """The day (UTC) that its last moment lies in."""
        return max(self.start, self.end - _TICK).date()

    @property
    def scope(self) -> str:
        """The bill that it stands on: whose, and of which month. The same for every version of that bill."""
        return bill_scope(self.provider, self.account, self.billing_month)

    @property
    def identity(self) -> str:
        """32 hex digits of all that tells it from other lines, its numbers left out: the same in a restated bill."""
        parts = [self.scope, self.sub_account, self.service, self.start.isoformat(), self.end.isoformat()]
        parts += [self.region, self.words, self.operation, self.resource, self.token_type, self.mode]
        parts += [f"{name}={value}" for name, value in sorted(self.tags.items())]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def bill_scope(provider: str, account: str, month: date) -> str:
    """How a bill is called in the ledger: `bill aws 123456789012 2026-11`."""
    return f"bill {provider} {account or '-'} {month:%Y-%m}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line belongs, whatever it is for: whose bill, whose usage, which billing month (its first day), when."""

    provider: str
    account: str
    sub_account: str
    month: date
    start: datetime
    end: datetime


@dataclass
class BillCounts:
    """What a bill holds, as far as it has been read. Days, months and accounts are those of all its lines.

    `providers` has "" for those that are not in PROVIDERS.
    """

    read: int = 0
    passed_over: int = 0
    first_day: date | None = None
    last_day: date | None = None
    scopes: set[str] = field(default_factory=set)
    providers: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)

    def see(self, place: Place, *, in_tokens: bool) -> None:
        """Take note of a line; without `in_tokens` it is for another service."""
        self.read += 1
        self.passed_over += not in_tokens
        self.providers.add(place.provider if place.provider in PROVIDERS else "")
        self.accounts.add(place.sub_account)
        self.scopes.add(bill_scope(place.provider, place.account, place.month))
        day = place.start.date()
        first = min(place.month, day)
        self.first_day = first if self.first_day is None else min(self.first_day, first)
        self.last_day = day if self.last_day is None else max(self.last_day, day)


class Bill(Protocol):
    """A bill that is read as a stream. `counts` is complete once the lines have been read to their end."""

    @property
    def name(self) -> str:
        """The file, as messages name it."""

    @property
    def layout(self) -> str:
        """What kind of export it is."""

    @property
    def counts(self) -> BillCounts:
        """What has been read so far."""

    def lines(self) -> Iterator[BillLine]:
        """The lines of services that sell tokens, in the file's order; others are counted. Raises BillError."""


def base_model(model: str) -> str:
    """A model's name without what bills leave out: geography, ARN, date, and the version if it is the first.

    `us.anthropic.claude-3-haiku-20240307-v1:0` is `anthropic.claude-3-haiku`, and `gpt-4o-mini-2024-07-18` is
    `gpt-4o-mini`. The ARN of an application's own profile stays as it is: it does not say the model.
    """
    if model.startswith("arn:"):
        parts = model.split(":", 5)
        kind, _, rest = parts[5].partition("/") if len(parts) > 5 else ("", "", "")
        if kind not in ("foundation-model", "inference-profile"):
            return model
        model = rest
    name = _GEOGRAPHY.sub("", model.lower())
    name = _LATER_VERSION.sub(r"\1", name)
    name = _BARE_VERSION.sub("", name)
    name = _FIRST_VERSION.sub("", name)
    return _DATE.sub("", name)


def fold_tag(name: str) -> str:
    """A tag's key as it can be compared: `user_cost_center`, `resourceTags/CostCenter` and `Cost-Center` are one."""
    return _NOT_IN_TAGS.sub("", _TAG_PREFIX.sub("", name).lower())


def fold_region(region: str) -> str:
    """A region as it can be compared: `East US` is `eastus`; "" for what is no region."""
    folded = re.sub(r"[^0-9a-z-]", "", region.lower())
    return "" if folded in ("global", "unassigned", "unknown", "na", "any") else folded
