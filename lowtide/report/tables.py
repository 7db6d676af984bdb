"""What was read for a report, and what it says of money when its tables are taken together."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from lowtide.billing.reading import is_priced
from lowtide.plan import PlannedOption, RunPlan
from lowtide.report.ledger import Ledger
from lowtide.report.results import Results
from lowtide.report.runs import RunRecord

_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Tables:
    """What was read; None for a table that is not there yet."""

    results: Results | None
    ledger: Ledger | None
    run: RunRecord | None

    @property
    def unasked(self) -> int:
        """Requests that a cap kept from being asked, as far as the results are this run's."""
        if self.results is None or not self._same_run:
            return 0
        known = self.run.requests if self.run else None
        return self.results.unasked if known is None else min(self.results.unasked, known)

    @property
    def asked_documents(self) -> int | None:
        """Documents of the run, less those of which nothing was asked for want of budget; None if not known."""
        documents = self.run.documents if self.run else None
        if documents is None or self.results is None or not self._same_run:
            return documents
        return max(documents - self.results.unasked_documents, 0)

    @property
    def _same_run(self) -> bool:
        return bool(self.run and self.results and self.results.run_ids.get(self.run.run_id or ""))


@dataclass(frozen=True, slots=True)
class Saving:
    """What the same work costs in real time, and what was paid for it, both in USD.

    `wasted` is the part of `paid` that brought no answer, `cached` the part of what was saved that answers of earlier
    runs would have cost at this run's prices.
    """

    realtime: Decimal
    paid: Decimal
    wasted: Decimal = _NOTHING
    cached: Decimal = _NOTHING

    @property
    def saved(self) -> Decimal:
        """Below zero where it cost more than in real time."""
        return self.realtime - self.paid


def saving(tables: Tables, *, priced: bool) -> Saving | None:
    """This run against real time, by the first table that knows both sides; None if none does.

    By the runs table, the work is all rows, those that were bought before as well; by the ledger, the tokens that were
    bought; by the results table, the rows that know what real time would have cost.
    """
    run, ledger, results = tables.run, tables.ledger, tables.results
    if not priced:
        return None
    in_usd = ledger is not None and not ledger.unknown and ledger.cost.keys() <= {"USD"}
    wasted = ledger.wasted_cost.get("USD", _NOTHING) if ledger is not None and in_usd else _NOTHING
    if run and run.realtime is not None and run.cost is not None:
        saved = max(run.realtime - run.cost, _NOTHING)
        return Saving(run.realtime, run.cost, min(wasted, run.cost), min(run.saved or _NOTHING, saved))
    if ledger is not None and in_usd and ledger.realtime is not None:
        return Saving(ledger.realtime, ledger.cost.get("USD", _NOTHING), wasted)
    if results and results.realtime is not None:
        return Saving(results.realtime, results.batch)
    return None


def cost(tables: Tables, *, priced: bool) -> Decimal | None:
    """What the run cost, in USD; None where that is not known."""
    if not priced:
        return None
    if tables.run and tables.run.cost is not None:
        return tables.run.cost
    charged = tables.ledger.cost if tables.ledger and not tables.ledger.unknown else {}
    return charged["USD"] if charged.keys() == {"USD"} else None


def chosen(plan: RunPlan | None) -> PlannedOption | None:
    """The option that the run was planned with; None in plans that name none."""
    return next((one for one in plan.options if one.chosen), None) if plan else None


def has_price(option: PlannedOption) -> bool:
    """Whether its costs say anything."""
    return is_priced(option.price_id, option.cost_usd)
