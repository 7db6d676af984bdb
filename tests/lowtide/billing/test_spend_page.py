"""The page of a month: its numbers are the record's, it is harmless, and it can be read on any screen."""

from __future__ import annotations

import io
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from lowtide.billing.spend import LedgerSum, Month, SpendMonth, spend_month
from lowtide.billing.spend_page import write_spend_page
from lowtide.budget.account import AccountState, Line, Spender
from lowtide.budget.caps import Cap

NOW = datetime(2026, 11, 16, 12, tzinfo=UTC)
BAD = "<script>alert(1)</script></svg>\u202e'\"><img src=x onerror=alert(2)>" + "W" * 200
WIDE = """() => [...document.querySelectorAll('body *')]
  .filter(one => !one.parentElement.closest('.scroll, .name') && one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.className || one.tagName)"""


class Tables(HTMLParser):
    """The tables behind the figures of a page, in their order: rows of cells, numbers as machines read them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[list[str]]]] = []
        self.tiles: dict[str, str] = {}
        self._cell: list[str] | None = None
        self._value = self._what = ""
        self._named = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "figure":
            self.found.append((given.get("data-figure") or "", []))
        elif tag == "tr":
            self.found[-1][1].append([])
        elif tag in {"td", "th"}:
            self._cell, self._value = [], ""
        elif tag == "data":
            self._value = given.get("value") or ""
            if given.get("class") == "big":
                self.tiles[self._what] = self._value
        self._named = given.get("class") == "what"

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"} and self._cell is not None:
            self.found[-1][1][-1].append(self._value or "".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        if self._named:
            self._what, self._named = data, False

    def rows(self, name: str) -> list[list[str]]:
        return next(rows[1:] for figure, rows in self.found if figure == name)


def line(day: int, usd: str, **values: object) -> LedgerSum:
    known: dict[str, object] = {
        "job": "tides",
        "run_id": f"r{day}",
        "day": date(2026, 11, day),
        "kind": "actual",
        "waste": "",
        "token_type": "input",
        "quantity": 100_000,
        "amount": Decimal(usd),
        "realtime": 2 * Decimal(usd),
    }
    return LedgerSum(**(known | values))  # type: ignore[arg-type]


def a_month(*more: LedgerSum, job: str = "tides", caps: tuple[Cap, ...] | None = None) -> SpendMonth:
    lines = [line(day, f"{day}.25", job=job) for day in range(1, 15)]
    lines += [line(day, "0.000000000001", waste="expired", job=job) for day in (3, 9)]
    lines += [line(4, "2.5", job="bread"), line(5, "8", kind="saved", job=job), line(6, "110", kind="billed", job=job)]
    run = f"runs/{job}/all/r14"
    account = AccountState(
        2,
        {run: Spender(job, {}), "runs/bread/all/r4": Spender("bread", {})},
        {
            "a": Line(run, Decimal(0), Decimal("108.500000000002"), 1, settled=True),
            "b": Line(run, Decimal("12.5"), Decimal(0), 2),
            "c": Line("runs/bread/all/r4", Decimal(0), Decimal("2.5"), 2, settled=True),
        },
    )
    known = (Cap("everything", Decimal(200), "f:1"), Cap("month_usd", Decimal(100), "j", job=job))
    return spend_month(
        "s3://bucket/lowtide",
        Month(2026, 11),
        [*lines, *more],
        caps=known if caps is None else caps,
        account=account,
        now=NOW,
    )


def page_of(month: SpendMonth) -> str:
    out = io.BytesIO()
    write_spend_page(month, out)
    return out.getvalue().decode("utf-8")


def usd(text: str) -> Decimal:
    assert text.endswith(" USD"), text
    return Decimal(text.removesuffix(" USD"))


def test_every_number_is_the_records() -> None:
    month = a_month()
    found = Tables(page_of(month))
    assert month.forecast is not None
    assert month.total.saved_usd is not None
    expected = {
        "Spent": month.total.spent_usd,
        "Forecast": month.forecast.usd,
        "Reserved now": month.total.reserved_usd,
        "Saved": month.total.saved_usd,
        "Saved by the cache": month.total.cached_usd,
        "Billed": month.total.billed_usd,
    }
    assert {name: Decimal(value) for name, value in found.tiles.items()} == expected
    assert [(row[0], usd(row[2]), usd(row[3]), usd(row[4])) for row in found.rows("jobs")] == [
        (job.job, job.spent_usd, job.wasted_usd, job.reserved_usd) for job in month.jobs
    ]
    assert [(row[0], usd(row[1]), usd(row[2])) for row in found.rows("days")] == [
        (str(day.day), day.spent_usd, day.wasted_usd) for day in month.days
    ]
    caps = [[usd(row[1]) for row in rows[1:]] for name, rows in found.found if name == "cap"]
    assert caps == [[cap.spent_usd, cap.reserved_usd, cap.left_usd, cap.usd] for cap in month.caps]
    assert usd(found.rows("saving")[-1][1]) == month.total.realtime_usd


def test_a_cap_that_is_passed_is_said() -> None:
    assert "21.00 USD over it." in page_of(a_month())


def test_what_is_not_known_is_said_in_words() -> None:
    page = page_of(a_month(caps=()))
    assert "No cap is known" in page
    assert "none known" in page
    assert "no bill read" in page
    empty = spend_month("file:///r", Month(2026, 11), [], caps=(), account=AccountState(), now=NOW)
    page = page_of(empty)
    for said in ("No ledger under this root has a line of this month.", "No day of this month has spending."):
        assert said in page
    unpriced = spend_month(
        "file:///r",
        Month(2026, 11),
        [line(1, "0", unpriced=2, realtime=None)],
        caps=(),
        account=AccountState(),
        now=NOW,
    )
    page = page_of(unpriced)
    assert "2 ledger lines without a price" in page
    assert "not known" in page
    assert not re.search(r"\b0\.0+ USD", page)


def test_an_account_that_says_other_than_the_ledgers_is_named() -> None:
    page = page_of(a_month(line(8, "1", job="new")))
    assert (
        "Cap &#39;everything&#39;: the account that stops runs counts 111.000000000002 USD, "
        "the ledgers say 112.000000000002 USD." in page
    )
    assert "the account that stops runs" not in page_of(a_month())


def test_hostile_names_stay_text() -> None:
    caps = (Cap(BAD, Decimal(5), BAD, tags={BAD: BAD}), Cap(BAD, Decimal(5), BAD, job=BAD))
    page = page_of(a_month(line(2, "1", currency=BAD), job=BAD, caps=caps))
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


def test_the_same_record_gives_the_same_bytes() -> None:
    assert page_of(a_month()) == page_of(a_month())


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_nothing_is_loaded(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    caps = (Cap(BAD, Decimal(5), BAD, tags={BAD: BAD}), Cap("everything", Decimal(200), "f:1"))
    empty = spend_month("file:///r", Month(2026, 11), [], caps=(), account=AccountState(), now=NOW)
    for month in (a_month(), a_month(job=BAD, caps=caps), empty):
        path = tmp_path / "spend.html"
        path.write_text(page_of(month), "utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        page, asked, messages = context.new_page(), list[str](), list[str]()
        page.on("request", lambda request, asked=asked: asked.append(request.url))  # type: ignore[misc]
        page.on("console", lambda message, messages=messages: messages.append(message.text))  # type: ignore[misc]
        page.goto(path.as_uri(), wait_until="load")
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WIDE) == []
        assert page.locator("script, img, iframe, a").count() == 0
        assert [url for url in asked if url != path.as_uri() and not url.startswith("data:")] == []
        assert messages == []
        for figure in page.locator("figure").all():
            assert figure.locator("svg[role=img]").get_attribute("aria-label")
        context.close()
