"""The page in a real browser: what it shows, what it does not do, and whether it can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Dialog, Page, Request

if TYPE_CHECKING:
    from conftest import Tables

Scheme = Literal["light", "dark"]
SIZES = {"desktop": (1280, 900), "tablet": (680, 900), "phone": (360, 800)}
BAD = "<script>alert(1)</script></svg></title><img src=x onerror=alert(2)>\u202ejavascript:alert(3)//'\"><a href=http://x.test>x"

# Every element that directly holds visible text, with its colour, size, weight and the nearest opaque background.
COLOURS = """() => {
  const seen = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), at = walk.currentNode.parentElement;
    if (!text || at.closest('svg') || !at.checkVisibility()) continue;
    let behind = at;
    while (behind.parentElement && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') {
      behind = behind.parentElement;
    }
    const style = getComputedStyle(at);
    seen.push({text: text.slice(0, 40), ink: style.color, page: getComputedStyle(behind).backgroundColor});
  }
  return seen;
}"""
MARKS = """() => [...document.querySelectorAll('.marks rect, .dot')].map(mark => ({
  ink: mark.matches('rect') ? getComputedStyle(mark).fill : getComputedStyle(mark).backgroundColor,
  page: getComputedStyle(document.body).backgroundColor,
}))"""
# What .scroll and .name hold is scrolled or cut, on purpose; they themselves must fit.
WIDE = """() => [...document.querySelectorAll('body *')]
  .filter(one => !one.parentElement.closest('.scroll, .name') && one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.className || one.tagName)"""


@dataclass
class Seen:
    """What a page did while it was open."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@contextmanager
def opened(
    browser: Browser, path: Path, html: str, size: str = "desktop", scheme: Scheme = "light"
) -> Iterator[tuple[Page, Seen]]:
    """The page, opened from its file as a reader would."""
    path.write_text(html, "utf-8")
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, seen = context.new_page(), Seen()

    def asked(request: Request) -> None:
        if request.url != path.as_uri() and not request.url.startswith("data:"):
            seen.requests.append(request.url)

    def asked_back(dialog: Dialog) -> None:
        seen.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("request", asked)
    page.on("console", lambda message: seen.messages.append(message.text))
    page.on("pageerror", lambda error: seen.messages.append(str(error)))
    page.on("dialog", asked_back)
    page.goto(path.as_uri(), wait_until="load")
    try:
        yield page, seen
    finally:
        context.close()


def hostile(tables: Tables) -> str:
    rows = [
        tables.row(
            number,
            operation=BAD if number % 2 else "topic",
            operation_kind="classify",
            status=("ok", "error", BAD)[number % 3],
            **dict.fromkeys(("status_reason", "label", "customer", "model", "backend"), BAD),
            document_uri=f"javascript:alert(4)//{BAD}",
            output_text=BAD * 40 + "W" * 500,
        )
        for number in range(30)
    ]
    entries = [tables.entry(number, shard=number, backend=BAD, model=BAD * 3, currency=BAD) for number in range(9)]
    places = {BAD: BAD * 5}
    return tables.page(
        tables.results(rows),
        tables.ledger(entries),
        job=BAD,
        window=BAD,
        run_id=BAD,
        tables=places,
        shards=tables.shard_times(3),
    )


def week(tables: Tables, shards: int = 12) -> str:
    return tables.page(**tables.a_week(shards=shards), shards=tables.shard_times(shards), tables={"results": "s3://x"})


def compared(tables: Tables, shards: int = 12) -> str:
    """The week with a plan, prices in real time and a cache."""
    return tables.page(**tables.a_compared_week(shards=shards), shards=tables.shard_times(shards), plan=tables.plan())


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance, of what getComputedStyle says."""
    inside = colour[colour.index("(") + 1 : -1].replace(",", " ").split()
    channels = [float(number) / 255 for number in inside[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(pair: dict[str, str]) -> float:
    light, dark = sorted((luminance(pair["ink"]), luminance(pair["page"])), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def opened_tables(page: Page, figure: str) -> list[list[str]]:
    """The rows of the table behind a figure, after a click on its summary; numbers as machines read them."""
    box = page.locator(f'[data-figure="{figure}"]').first
    box.locator("summary").click()
    assert box.locator("table").is_visible()
    rows: list[list[str]] = box.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.querySelector('data')?.value ?? cell.innerText))"
    )
    return rows


@pytest.mark.parametrize("size", SIZES)
def test_hostile_rows_do_nothing(browser: Browser, tables: Tables, tmp_path: Path, size: str) -> None:
    with opened(browser, tmp_path / "report.html", hostile(tables), size) as (page, seen):
        for summary in page.locator("summary").all():
            summary.click()
        page.wait_for_timeout(200)
        assert (seen.requests, seen.messages, seen.dialogs) == ([], [], [])
        assert page.locator("script, img, iframe, object, a, form, base, foreignObject").count() == 0
        assert page.locator(".cards > li").count() == 20
        assert "<script>alert(1)</script>" in page.locator("h1").inner_text()
        assert page.evaluate(WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]


def test_a_script_that_got_in_would_not_run(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    smuggled = tables.page().replace("<footer>", "<script>alert(1)</script><img src=http://x.test/y.png><footer>")
    with opened(browser, tmp_path / "report.html", smuggled) as (page, seen):
        page.wait_for_timeout(200)
        assert seen.dialogs == []
        assert sum("Content Security Policy" in message for message in seen.messages) == 2


def test_the_page_shows_the_numbers_of_the_results_table(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    held = pq.read_table(tables.a_week()["results"]).to_pylist()
    with opened(browser, tmp_path / "report.html", week(tables)) as (page, seen):
        shown = page.locator('[data-figure="statuses"] .key li').evaluate_all(
            "items => items.map(item => [item.querySelector('bdi').innerText, item.querySelector('data').innerText])"
        )
        statuses = Counter(row["status"] for row in held)
        assert {name: int(text.replace(",", "")) for name, text in shown} == statuses
        by_operation = Counter(row["operation"] for row in held)
        assert {row[0]: int(row[-1]) for row in opened_tables(page, "statuses")} == by_operation
        labels = Counter(row["label"] or "no label" for row in held if row["operation"] == "topic")
        assert {row[0]: int(row[1]) for row in opened_tables(page, "labels")} == labels
        assert page.locator(".tiles data").first.get_attribute("value") == str(len(held))
        assert (seen.requests, seen.messages) == ([], [])


def test_the_page_shows_the_numbers_of_the_ledger(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    held = [row for row in pq.read_table(tables.a_week()["ledger"]).to_pylist() if row["kind"] == "actual"]
    with opened(browser, tmp_path / "report.html", week(tables)) as (page, _):
        by_shard: Counter[str] = Counter()
        spent: Counter[str] = Counter()
        for row in held:
            by_shard[str(row["shard"])] += row["quantity"]
            spent[str(row["shard"])] += row["amount"]
        assert {row[0]: int(row[-1]) for row in opened_tables(page, "tokens")} == by_shard
        assert {row[0]: Decimal(row[-1].removesuffix(" USD")) for row in opened_tables(page, "cost")} == spent
        bill = page.locator("#tokens")
        bill.locator("summary").first.click()
        rows = (
            bill.locator("table")
            .first.locator("tbody tr")
            .evaluate_all("rows => rows.map(row => row.querySelector('data').value)")
        )
        assert sum(map(int, rows)) == sum(row["quantity"] for row in held)
        cost = page.locator(".tiles li", has_text="Cost").locator("data")
        assert Decimal(cost.get_attribute("value") or "") == sum(row["amount"] for row in held)


def test_bars_are_as_long_as_what_they_stand_for(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "report.html", week(tables)) as (page, _):
        figure = page.locator('[data-figure="labels"]')
        widths = figure.locator("rect").evaluate_all("marks => marks.map(mark => mark.getBoundingClientRect().width)")
        rows = [int(one.get_attribute("value") or 0) for one in figure.locator(".bars data").all()]
        assert len(widths) == len(rows) == 7
        for width, count in zip(widths, rows, strict=True):
            assert width / widths[0] == pytest.approx(count / rows[0], abs=0.01)
        middles = figure.locator("rect").evaluate_all(
            "marks => marks.map(mark => mark.getBoundingClientRect()).map(box => box.top + box.height / 2)"
        )
        names = figure.locator(".name").evaluate_all(
            "names => names.map(name => name.getBoundingClientRect()).map(box => box.top + box.height / 2)"
        )
        assert middles == pytest.approx(names, abs=2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shards", [0, 1, 12, 500])
def test_nothing_sticks_out_at_the_side(
    browser: Browser, tables: Tables, tmp_path: Path, size: str, shards: int
) -> None:
    long = [
        tables.row(n, operation_kind="classify", label=f"label {n % 40} {'with a long name ' * 6}") for n in range(400)
    ]
    page_text = tables.page(
        **(tables.a_week(300, shards) | {"results": tables.results(long)}), shards=tables.shard_times(shards)
    )
    with opened(browser, tmp_path / "report.html", page_text, size) as (page, seen):
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        assert page.evaluate(WIDE) == []
        assert (seen.requests, seen.messages) == ([], [])


@pytest.mark.parametrize("size", SIZES)
def test_ticks_do_not_run_into_each_other(browser: Browser, tables: Tables, tmp_path: Path, size: str) -> None:
    for shards in (12, 500):
        with opened(browser, tmp_path / "report.html", week(tables, shards), size) as (page, _):
            overlaps = page.evaluate("""() => [...document.querySelectorAll('.along')].flatMap(axis => {
              const boxes = [...axis.children].filter(one => one.checkVisibility()).map(one => {
                const range = document.createRange();
                range.selectNodeContents(one);
                return range.getBoundingClientRect();
              });
              return boxes.slice(1).filter((box, index) => box.left < boxes[index].right + 2).map(() => axis.innerText);
            })""")
            assert overlaps == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out(browser: Browser, tables: Tables, tmp_path: Path, scheme: Scheme) -> None:
    for number, text in enumerate((compared(tables), week(tables), tables.page(), hostile(tables))):
        with opened(browser, tmp_path / f"{number}.html", text, scheme=scheme) as (page, _):
            for summary in page.locator("summary").all():
                summary.click()
            texts = page.evaluate(COLOURS)
            assert len(texts) > 20
            assert [one for one in texts if contrast(one) < 4.5] == []  # WCAG 2.2, 1.4.3
            assert [one for one in page.evaluate(MARKS) if contrast(one) < 3] == []  # WCAG 2.2, 1.4.11


def test_dark_is_dark(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with opened(browser, tmp_path / "report.html", week(tables), scheme=scheme) as (page, _):
            grounds[scheme] = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds["light"] > 0.9
    assert grounds["dark"] < 0.02


def test_every_chart_has_a_name_and_a_table(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "report.html", compared(tables)) as (page, _):
        drawn = page.locator("figure").evaluate_all("figures => figures.map(one => one.dataset.figure)")
        assert sorted(drawn) == sorted(
            ("statuses", "labels", "plan", "backends", "saving", "cache", "cost", "tokens", "lanes", "tokens", "waste")
        )
        for figure in page.locator("figure").all():
            for picture in figure.locator("svg[role=img]").all():
                assert picture.get_attribute("aria-label")
            assert figure.locator("svg[role=img]").count() > 0
            assert figure.locator("details table tbody tr").count() > 0
        levels = page.locator("h1, h2, h3").evaluate_all("heads => heads.map(head => +head.tagName[1])")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))


def test_it_prints_on_white_without_the_closed_tables(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "report.html", week(tables), scheme="dark") as (page, _):
        page.emulate_media(media="print")
        assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9
        assert page.locator("summary").first.is_hidden()
        assert page.locator('[data-figure="statuses"] .key').is_visible()
        assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("size", SIZES)
def test_the_pictures_of_money_fit(browser: Browser, tables: Tables, tmp_path: Path, size: str) -> None:
    long = tables.plan(price_id="p" * 300, price_book="b" * 300)
    pages = (compared(tables), tables.page(**tables.a_compared_week(), plan=long))
    for text in pages:
        with opened(browser, tmp_path / "report.html", text, size) as (page, seen):
            for summary in page.locator("summary").all():
                summary.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
            assert page.evaluate(WIDE) == []
            assert (seen.requests, seen.messages) == ([], [])


def test_a_gauge_marks_what_came_out_where_it_belongs(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "report.html", compared(tables)) as (page, _):
        gauge = page.locator('[data-figure="plan"] li', has_text="Cost")
        actual = Decimal((gauge.locator("data").get_attribute("value") or "").removesuffix(" USD"))
        low, expected, high = Decimal("61.20") * Decimal("0.86"), Decimal("61.20"), Decimal("61.20") * Decimal("1.19")
        left, middle, right, place = gauge.locator(".track").evaluate("""track => {
          const box = role => track.querySelector(`.s-${role} rect`).getBoundingClientRect();
          const start = track.getBoundingClientRect().left, centre = role => box(role).left + box(role).width / 2;
          const places = [box('planned').left, centre('expected'), box('planned').right, centre('actual')];
          return places.map(place => place - start);
        }""")
        for found, value in ((left, low), (middle, expected), (place, actual)):
            assert found / right == pytest.approx(float(value / high), abs=0.01)


def test_pictures_of_money_print(browser: Browser, tables: Tables, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "report.html", compared(tables), scheme="dark") as (page, _):
        page.emulate_media(media="print")
        for name in ("plan", "backends", "saving", "cache", "waste"):
            assert page.locator(f'[data-figure="{name}"] svg').first.is_visible()
        assert [one for one in page.evaluate(MARKS) if contrast(one) < 3] == []
