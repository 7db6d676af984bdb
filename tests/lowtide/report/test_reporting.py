"""The report of a run that was really made, against a provider that is a stand-in: plan, tables and page agree."""

from __future__ import annotations

import io
import re
from decimal import Decimal

import pyarrow.parquet as pq
from support.engine_support import finish, ledger
from support.standins import ListedDocuments, MemoryStore, Provider, StandInBackend, work_on

from lowtide.engine import Run, open_run
from lowtide.prices import Price
from lowtide.reporting import report_of

ON_DEMAND = Price("demand", "made up", {"input": Decimal("0.03"), "output": Decimal("0.06")})
PRICE = Price("batch", "made up", {"input": Decimal("0.01"), "output": Decimal("0.02")}, ON_DEMAND)


def run_over(store: MemoryStore, texts: int) -> Run:
    documents = ListedDocuments({f"d{number}": f"text {number // 2}" for number in range(texts)})
    run = open_run(work_on(store, StandInBackend(Provider()), documents, price=PRICE))
    assert finish(run).done
    return run


def page_of(run: Run) -> str:
    out = io.BytesIO()
    report_of(run, out)
    return out.getvalue().decode("utf-8")


def section(page: str, name: str) -> str:
    return page[page.index(f'<section id="{name}">') :].partition("</section>")[0]


def test_a_real_run_has_every_picture_of_money() -> None:
    store = MemoryStore()
    run_over(store, 8)
    run = run_over(store, 12)
    page = page_of(run)
    [row] = pq.read_table(
        io.BytesIO(store.objects[f"tables/runs/job=test/window=all/{run.plan.run_id}.parquet"]), partitioning=None
    ).to_pylist()
    assert row["requests"] + row["reused_requests"] + row["twin_requests"] == 12
    for name in ("plan", "backends", "saving", "cache"):
        assert f'data-figure="{name}"' in page
    [option] = run.plan.options
    gauges = section(page, "plan")
    assert f">{option.input_tokens.expected:,}<" in gauges
    assert f">{row['input_tokens']:,}<" in gauges
    saving = section(page, "saving")
    for amount in (row["cost_if_realtime_usd"], row["saved_usd"]):
        assert f'value="{amount:f} USD"' in saving
    assert "do not agree" not in page
    spent = sum(line["amount"] for line in ledger(store, run).to_pylist() if line["kind"] == "actual")
    tile = re.search(r'<span class="what">Cost</span><data class="big" value="([\d.]+)"', page)
    assert tile is not None
    assert Decimal(tile[1]) == spent == row["cost_usd"]
