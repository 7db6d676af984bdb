"""Pictures of money against the tables and the plan that they are made from."""

from __future__ import annotations

import io
import re
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from lowtide.plan import PlannedOption, PlannedPrice
from lowtide.report.text import change, divided, money

if TYPE_CHECKING:
    from conftest import Tables

BAD = "<script>alert(1)</script>\u202e'\"><img src=x onerror=alert(2)>"


class Figures(HTMLParser):
    """The tables behind the figures of a page: by the figure's name, rows of cells, numbers as machines read them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.texts: dict[str, str] = {}
        self._figure = ""
        self._cell: list[str] | None = None
        self._value = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "figure":
            self._figure = given.get("data-figure") or ""
            self.rows[self._figure] = []
            self.texts[self._figure] = ""
        elif tag == "tr" and self._figure:
            self.rows[self._figure].append([])
        elif tag in {"td", "th"}:
            self._cell, self._value = [], ""
        elif tag == "data":
            self._value = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure":
            self._figure = ""
        elif tag in {"td", "th"} and self._cell is not None:
            if self._figure:
                self.rows[self._figure][-1].append(self._value or "".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        if self._figure:
            self.texts[self._figure] += data


def usd(text: str) -> Decimal:
    assert text.endswith(" USD"), text
    return Decimal(text.removesuffix(" USD"))


def held(stream: io.BytesIO) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(stream).to_pylist()
    return rows


@pytest.fixture
def figures(tables: Tables) -> Figures:
    return Figures(tables.page(**tables.a_compared_week(), plan=tables.plan()))


def test_plan_against_actual_has_the_plans_and_the_runs_numbers(tables: Tables, figures: Figures) -> None:
    [run] = held(tables.a_compared_week()["runs"])
    option = tables.plan().options[0]
    found = {row[0]: row[1:] for row in figures.rows["plan"][1:]}
    for name, planned, column in (
        ("Tokens in", option.input_tokens, "input_tokens"),
        ("Tokens out", option.output_tokens, "output_tokens"),
    ):
        assert [int(one) for one in found[name][:4]] == [planned.low, planned.expected, planned.high, run[column]]
    costs = [option.cost_low_usd, option.cost_usd, option.cost_high_usd, run["cost_usd"]]
    assert [usd(one) for one in found["Cost"][:4]] == costs
    assert found["Time"][1] == str(4 * 3600)
    assert found["Time"][3] == str(3 * 3600 + 12 * 60 + 40)
    assert "before its deadline" in figures.texts["plan"]


def test_what_came_out_beside_the_range_is_said(tables: Tables) -> None:
    [run] = held(tables.a_compared_week()["runs"])
    inside = run | {"input_tokens": 60_000_000, "output_tokens": 9_100_000, "cost_usd": Decimal("61.20")}
    page = tables.page(runs=tables.runs([inside]), plan=tables.plan())
    assert "Tokens in as expected, tokens out 1.1 % over plan and cost as expected." in page
    assert "All of it is within the planned range." in page
    page = tables.page(runs=tables.runs([inside | {"output_tokens": 12_000_000}]), plan=tables.plan())
    assert "Outside of the planned range: tokens out." in page
    late = inside | {"deadline": tables.start + timedelta(hours=3)}
    assert "It finished 12 min 40 s after its deadline." in tables.page(runs=tables.runs([late]), plan=tables.plan())


def test_cost_per_1000_documents_by_backend(tables: Tables, figures: Figures) -> None:
    [run] = held(tables.a_compared_week()["runs"])
    text = figures.texts["backends"]
    for usd_of_all in (run["cost_usd"], run["cost_if_realtime_usd"]):
        assert money(divided(Decimal(str(usd_of_all)) * 1000, 2_000)) in text
    rows = {row[0]: row for row in figures.rows["backends"][1:]}
    for option in tables.plan().options:
        row = rows[option.backend]
        assert usd(row[3]) == divided(option.cost_usd * 1000, 2_000)
        assert [usd(one) for one in row[4:8]] == [
            option.cost_low_usd,
            option.cost_usd,
            option.cost_high_usd,
            option.realtime_usd,
        ]
        assert row[9] == ("chosen" if option.chosen else option.why_not)
    assert "spot: would be done 7 h after the deadline" in text


def test_the_parts_of_what_real_time_costs_add_up_to_it(tables: Tables, figures: Figures) -> None:
    [run] = held(tables.a_compared_week()["runs"])
    rows = [usd(row[1]) for row in figures.rows["saving"][1:]]
    assert rows[-1] == sum(rows[:-1]) == run["cost_if_realtime_usd"]
    parts = {row[0]: usd(row[1]) for row in figures.rows["saving"][1:]}
    assert parts["paid for answers"] + parts["paid in vain"] == run["cost_usd"]
    assert parts["saved by the cache"] == run["saved_usd"]
    waste = [row["amount"] for row in held(tables.a_compared_week()["ledger"]) if row["waste"]]
    assert parts["paid in vain"] == sum(Decimal(str(one)) for one in waste)


def test_what_the_cache_saved_is_in_no_sum_of_what_was_spent(tables: Tables, figures: Figures) -> None:
    ledger = held(tables.a_compared_week()["ledger"])
    spent = sum(Decimal(str(row["amount"])) for row in ledger if row["kind"] == "actual")
    page = tables.page(**tables.a_compared_week(), plan=tables.plan())
    tile = re.search(r'<span class="what">Cost</span><data class="big" value="([\d.]+)"', page)
    assert tile is not None
    assert Decimal(tile[1]) == spent
    assert "do not agree" not in page
    cache = {row[0]: row[1:] for row in figures.rows["cache"][1:]}
    assert cache["requests asked"][0] == "5460"
    assert cache["requests answered by earlier runs"][0] == "480"
    assert cache["requests same as another of this run"][0] == "60"
    saved = {row["token_type"]: row for row in ledger if row["kind"] == "saved"}
    assert cache["tokens saved: input"][0] == str(saved["input"]["quantity"])
    assert usd(cache["tokens saved: output"][1]) == saved["output"]["amount"]
    total = sum(Decimal(str(row["amount"])) for row in saved.values())
    assert f"That saved {money(total)} for 1,650,000 tokens" in figures.texts["cache"]


def test_waste_is_drawn_by_kind_with_its_cost(tables: Tables, figures: Figures) -> None:
    wasted = [row for row in held(tables.a_compared_week()["ledger"]) if row["kind"] == "actual" and row["waste"]]
    found = {row[0]: (int(row[2]), usd(row[3])) for row in figures.rows["waste"][1:]}
    assert set(found) == {row["waste"] for row in wasted}
    for kind, (tokens, cost) in found.items():
        mine = [row for row in wasted if row["waste"] == kind]
        assert tokens == sum(int(str(row["quantity"])) for row in mine)
        assert cost == sum(Decimal(str(row["amount"])) for row in mine)


def test_a_run_without_a_cache_hit_says_so(tables: Tables) -> None:
    run = {"run_id": "run-1", "requests": 40, "reused_requests": 0, "twin_requests": 0}
    assert "Every request was asked" in tables.page(runs=tables.runs([run]))


def test_a_run_that_was_dearer_than_real_time_says_so(tables: Tables) -> None:
    run = {"run_id": "run-1", "cost_usd": Decimal(3), "cost_if_realtime_usd": Decimal(2)}
    page = tables.page(runs=tables.runs([run]))
    assert "In real time the same work costs 2.00 USD; 3.00 USD were paid: 1.00 USD more than in real time." in page
    assert "Extra cost" in page
    assert 'data-figure="saving"' not in page


def test_old_tables_still_give_a_report(tables: Tables) -> None:
    newer = {
        "runs": ("planned_output_tokens", "text_bytes", "reused_requests", "twin_requests", "saved_usd"),
        "ledger": ("realtime_amount", "price_id"),
        "results": ("cost_if_realtime_usd", "cached"),
    }
    newer["runs"] += ("cost_if_realtime_usd",)
    old = {}
    for name, stream in tables.a_week(300, 2).items():
        table = pq.read_table(stream)
        old[name] = tables.write({one: table[one] for one in table.column_names if one not in newer[name]})
    page = tables.page(**old)
    for name in ("cache", "saving"):
        assert f'data-figure="{name}"' not in page
    assert "Per 1,000 documents" in page
    assert "not known" not in page
    assert "Saving" not in page
    found = Figures(page)
    assert [row[0] for row in found.rows["plan"][1:]] == ["Cost", "Time"]


def test_an_unknown_price_is_words_and_never_a_zero(tables: Tables) -> None:
    named = {"price_id": "gpt-4o-mini batch: no price", "amount": Decimal(0)}
    entries = [
        tables.entry(1, **named),
        tables.entry(2, **named, waste="expired", quantity=7),
        tables.entry(3, **named, kind="estimate"),
    ]
    run = {"run_id": "run-1", "documents": 10, "cost_usd": Decimal(0), "planned_cost_usd": Decimal(0)}
    plan = tables.plan(
        price_id=named["price_id"], cost_usd=Decimal(0), options=(), run_usd=None, approve_above_usd=None
    )
    page = tables.page(None, tables.ledger(entries), tables.runs([run]), priced=False, plan=plan)
    assert not re.search(r"\b0\.0+ USD", page)
    rows = Figures(page)
    assert rows.rows["tokens"][1][-1] == "not known"
    assert "What was charged is not known: no price." in page
    assert "Per 1,000 documents" not in page
    assert [row[-1] for row in rows.rows["waste"][1:]] == ["not known"]


def test_a_price_that_is_known_for_some_is_a_sum_and_more(tables: Tables) -> None:
    entries = [
        tables.entry(1, amount=Decimal("0.25")),
        tables.entry(2, amount=Decimal(0), price_id="m on demand: no price", attempt=2),
    ]
    page = tables.page(
        ledger=tables.ledger(entries), runs=tables.runs([{"run_id": "run-1", "cost_usd": Decimal("0.25")}])
    )
    assert "0.25 USD and more" in page
    assert "and more: not every price is known" in page


def test_a_backend_that_charges_nothing_is_a_zero(tables: Tables) -> None:
    page = tables.page(ledger=tables.ledger([tables.entry(1, amount=Decimal(0), price_id="local")]))
    assert "Nothing was charged." in page
    assert "not known" not in page


def test_options_without_a_price_are_told_and_not_drawn(tables: Tables) -> None:
    options = list(tables.plan().options)
    unpriced: dict[str, object] = {name: getattr(options[2], name) for name in PlannedOption.__struct_fields__}
    unpriced |= dict.fromkeys(("cost_low_usd", "cost_usd", "cost_high_usd"), Decimal(0))
    unpriced |= {"price_id": "qwen: no price", "realtime_usd": None, "why_not": "no price is known"}
    options[2] = PlannedOption(**unpriced)  # type: ignore[arg-type]
    found = Figures(tables.page(**tables.a_compared_week(), plan=tables.plan(options=tuple(options))))
    row = next(row for row in found.rows["backends"] if row[0] == "spot")
    assert row[3:8] == ["not known"] * 5
    assert "No price is known for 1 backend." in found.texts["backends"]
    assert "spot, planned" not in found.texts["backends"]


def test_hostile_names_in_a_plan_stay_text(tables: Tables) -> None:
    option = tables.plan().options[1]
    named = {name: getattr(option, name) for name in PlannedOption.__struct_fields__}
    named |= dict.fromkeys(("backend", "model", "region", "price_id", "why_not"), BAD)
    hostile = (tables.plan().options[0], PlannedOption(**named))
    entries = [tables.entry(1, kind="saved", token_type=BAD), tables.entry(2, waste=BAD)]
    runs = held(tables.a_compared_week()["runs"])
    page = tables.page(
        None,
        tables.ledger(entries),
        tables.runs([runs[0] | {"backend": BAD}]),
        plan=tables.plan(options=hostile, price_id=BAD, price_book=BAD),
    )
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (112, 100, "+12 %"),
        (97, 100, "-3 %"),
        (5, 5, "±0 %"),
        (140, 10, "14 times"),
        (3, 0, ""),
        (0, 4, "-100 %"),
        (1, 10**6, "-99.9999 %"),
        (1_000_003, 10**6, "+0.0003 %"),
        (2 * 10**9 + 1, 10**9, "+100 %"),
    ],
)
def test_a_change_is_a_share_or_a_factor(now: int, before: int, said: str) -> None:
    assert change(now, before) == said


def test_a_run_that_stopped_at_its_cap_says_so_and_counts_what_was_asked(tables: Tables) -> None:
    rows = [tables.row(number) for number in range(40)]
    rows += [
        tables.row(
            number,
            status="skipped",
            status_reason=f"budget: run_usd 0.10 USD of this run has 0.0{number} left (0.05 spent)",
            cost_usd=Decimal(0),
        )
        for number in range(40, 80)
    ]
    run = {"run_id": "run-1", "documents": 80, "requests": 80, "reused_requests": 0, "twin_requests": 0}
    run |= {"cost_usd": Decimal(4)}
    page = tables.page(tables.results(rows), runs=tables.runs([run]))

    assert "Stopped at its cap: 40 of 80 requests were not asked." in page
    assert "Every request was asked" not in page
    assert "40 of 80 requests were asked" in page
    assert "Cost per 1,000 documents that were asked" in page
    assert "100.00 USD at this run, this run." in page, "4 USD for the 40 documents that were asked"
    assert page.count("run_usd 0.10 USD of this run</") >= 1, "one reason for one cap"


def test_a_run_below_its_cap_has_no_banner(tables: Tables) -> None:
    rows = [tables.row(1), tables.row(2, status="skipped", status_reason="the document is empty")]
    run = {"run_id": "run-1", "documents": 2, "requests": 1, "reused_requests": 0, "twin_requests": 0}
    page = tables.page(tables.results(rows), runs=tables.runs([run]))
    assert "Stopped at its cap" not in page
    assert "Every request was asked" in page


def test_a_price_is_named_by_where_it_is_from_and_once(tables: Tables) -> None:
    own = PlannedPrice("nova batch", "our contract of May", {"input": Decimal("0.000001")})
    assert "job file: our contract of May" in tables.page(plan=tables.plan(price=own))
    booked = "2026-11-20-3f9a12aa: aws/eu-central-1/nova/batch"
    page = tables.page(plan=tables.plan(price_id=booked, price_book="2026-11-20-3f9a12aa", price=own))
    assert f"book {booked}" in page
    assert page.count("2026-11-20-3f9a12aa") == 1
    assert "Prices" not in tables.page(plan=tables.plan(backend="local", price_id="local"))
