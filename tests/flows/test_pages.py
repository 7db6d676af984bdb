"""What the pages of a flow run say of money, for runs against a provider whose prices and faults are chosen here."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from support.engine_support import finish
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide.billing.reading import UNPRICED
from lowtide.engine import Run, open_run
from lowtide.flows.pages import UNKNOWN, markdown, money_of, rows
from lowtide.ledger import entries, realtime
from lowtide.prices import LOCAL, Price
from lowtide.summary import Summary, summarize

ON_DEMAND = Price("demand", "made up", {"input": Decimal("0.000003"), "output": Decimal("0.000006")})
PRICE = Price("batch", "made up", {"input": Decimal("0.000001"), "output": Decimal("0.000002")}, ON_DEMAND)


def finished(store: MemoryStore | None = None, *, price: Price = PRICE, texts: int = 6, **values: object) -> Run:
    documents = ListedDocuments({f"d{number}": f"text {number}" for number in range(texts)})
    work = work_on(store or MemoryStore(), StandInBackend(Provider()), documents, price=price, **values)  # type: ignore[arg-type]
    run = open_run(work)
    assert finish(run).done
    return run


def usd(text: str) -> Decimal:
    return Decimal(text.removesuffix(" USD").replace(",", ""))


def table(summary: Summary, run: Run | None = None) -> dict[str, str]:
    return dict(rows(summary, money_of(summary, run)))


def test_the_table_has_plan_and_actual_saved_wasted_and_cap() -> None:
    run = finished(run_usd=Decimal(5))
    summary = summarize(run)
    said = table(summary, run)
    assert usd(said["cost"]) == summary.cost_usd > 0
    assert usd(said["planned cost"]) == run.plan.cost_usd
    known = realtime(run.state, PRICE)
    assert known is not None
    assert usd(said["saved against real time"]) == known - summary.cost_usd == 2 * summary.cost_usd
    assert usd(said["cost of waste"]) == 0
    assert usd(said["cap of the run"]) == 5
    page = markdown(summary, money_of(summary, run))
    option = run.plan.options[0]
    assert f"between {option.cost_low_usd:.6f} USD and {option.cost_high_usd:.6f} USD" in page
    assert "saved against real time: " in page
    assert f"cap of the run: 5.000000 USD, {5 - summary.cost_usd:.6f} USD left" in page


def test_what_an_earlier_run_has_bought_is_told_with_its_worth() -> None:
    store = MemoryStore()
    first = summarize(finished(store))
    again = finished(store, texts=7)
    summary = summarize(again)
    said = table(summary, again)
    assert said["requests answered by earlier runs"] == "6"
    assert usd(said["saved by the cache"]) == summary.saved_usd == first.cost_usd
    assert "6 requests answered by earlier runs: " in markdown(summary, money_of(summary, again))


def test_waste_is_told_with_its_cost() -> None:
    run = finished()
    summary = msgspec.structs.replace(summarize(run), wasted_tokens=7)
    lost = sum((line.amount for line in entries(run.plan, run.state, PRICE) if line.waste), Decimal(0))
    assert f"7 tokens brought no answer that was kept: {lost:.6f} USD" in markdown(summary, money_of(summary, run))


def test_an_unknown_price_is_words() -> None:
    unpriced = Price(f"echo{UNPRICED}", "none")
    run = finished(price=unpriced)
    summary = summarize(run)
    for known in (money_of(summary, run), money_of(summary)):
        said = dict(rows(summary, known))
        assert said["cost"] == said["planned cost"] == UNKNOWN
        assert not any("USD" in text for name, text in said.items() if name != "cap of the run")
        page = markdown(summary, known)
        assert f"cost **{UNKNOWN}**" in page
        assert "USD" not in page


def test_a_backend_that_charges_nothing_costs_nothing() -> None:
    run = finished(price=LOCAL)
    summary = summarize(run)
    assert table(summary, run)["cost"] == "0.000000 USD"
    assert "saved against real time" not in table(summary, run)


def test_without_the_run_only_what_the_summary_knows_is_said() -> None:
    summary = summarize(finished(run_usd=Decimal(5)))
    said = table(summary)
    assert usd(said["cost"]) == summary.cost_usd
    assert {"saved against real time", "cost of waste", "cap of the run"}.isdisjoint(said)


@pytest.mark.parametrize(("usd", "said"), [("12.5", "12.500000 USD"), ("0.000000012", "0.000000012 USD")])
def test_no_amount_shows_as_nothing(usd: str, said: str) -> None:
    summary = msgspec.structs.replace(summarize(finished()), cost_usd=Decimal(usd))
    assert table(summary)["cost"] == said


def test_the_time_of_machines_that_bought_nothing_is_told_where_time_is_paid() -> None:
    run = finished()
    summary = msgspec.structs.replace(summarize(run), machine_seconds=1000, wasted_seconds=460)
    said = table(summary, run)
    assert (said["machine seconds"], said["machine seconds wasted"]) == ("1,000", "460")
    page = markdown(summary, money_of(summary, run))
    assert "- 460 of 1,000 machine seconds brought no answer that was kept: 0.000000 USD" in page
    both = msgspec.structs.replace(summary, wasted_tokens=7)
    assert "- 7 tokens and 460 of 1,000 machine seconds brought no answer" in markdown(both, money_of(both, run))
    assert "machine seconds" not in table(summarize(run), run)
