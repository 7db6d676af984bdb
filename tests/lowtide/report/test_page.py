"""The page as text. What a browser makes of it is in test_browser.py."""

from __future__ import annotations

import dataclasses
import html
import io
import re
import subprocess
import sys
import textwrap
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from lowtide.errors import StoreError
from lowtide.report import write_report

if TYPE_CHECKING:
    from conftest import Tables

HOSTILE = (
    "<script>alert(1)</script></svg></title></style><img src=x onerror=alert(2)>\"' onmouseover=alert(3) x='",
    "javascript:alert(4)",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}",
    "safe\u202egpj.exe\u2066\x00\u2028end",
    "]]>--><!--<svg onload=alert(5)>&lt;script&gt;&#x3c;",
    "=HYPERLINK(0)",
)
ALLOWED = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "main", "footer", "section"),
    *("h1", "h2", "h3", "p", "ul", "ol", "li", "dl", "dt", "dd", "div", "span", "bdi", "strong", "small", "code", "i"),
    *("figure", "figcaption", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "data", "time"),
    *("svg", "g", "rect"),
}


class Outline(HTMLParser):
    """Which tags and attributes a page has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")


def hostile_page(tables: Tables, bad: str) -> str:
    statuses = ("ok", "error", bad)
    rows = [
        tables.row(
            number,
            operation=bad if number % 2 else "topic",
            operation_kind="classify",
            status=statuses[number % 3],
            **dict.fromkeys(
                ("status_reason", "document_uri", "output_text", "label", "customer", "model", "backend"), bad
            ),
            run_id=bad,
        )
        for number in range(12)
    ]
    named = dict.fromkeys(("kind", "waste", "token_type", "currency", "backend", "model", "unit"), bad)
    entries = [tables.entry(1), tables.entry(2, **named), tables.entry(3, **(named | {"kind": "actual"}))]
    results = tables.results(rows)
    table = dict(_columns(results))
    table[bad] = ["the name of this field is hostile"] * len(rows)
    shards = [dataclasses.replace(one, backend=bad) for one in tables.shard_times(3)]
    return tables.page(
        tables.write(table),
        tables.ledger(entries),
        tables.runs([{"run_id": bad, "rows": 12, "backend": bad}]),
        job=bad,
        window=bad,
        run_id=bad,
        state=bad,
        tables={bad: bad},
        shards=shards,
    )


def _columns(stream: io.BytesIO) -> dict[str, object]:
    table = pq.read_table(stream)
    return {name: table.column(name) for name in table.column_names}


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_text_stays_text(tables: Tables, bad: str) -> None:
    page = hostile_page(tables, bad)
    outline = Outline(page)
    assert outline.tags <= ALLOWED
    assert not [name for name in outline.attributes if name.startswith("on") or name in {"src", "srcset", "action"}]
    assert all(address.startswith("data:") for address in outline.attributes["href"])
    assert all(re.fullmatch(r"grid-row:1/span \d+", style) for style in outline.attributes["style"])
    assert outline.attributes["class"] <= {one for one in outline.attributes["class"] if re.fullmatch(r"[\w\- ]+", one)}
    shown = html.unescape(re.sub(r"<[^>]*>", "", page))
    assert bad.partition("\u202e")[0] in shown


def test_unseen_characters_are_nowhere_on_the_page(tables: Tables) -> None:
    page = hostile_page(tables, HOSTILE[3])
    assert not set("\u202e\u2066\x00\u2028") & set(page)
    assert "safe[U+202E]gpj.exe[U+2066][U+0000][U+2028]end" in page


def test_the_page_forbids_itself_to_load_or_run_anything(tables: Tables) -> None:
    page = tables.page()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert page.startswith("<!doctype html>")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_what_is_not_there_yet_is_said_in_words(tables: Tables) -> None:
    page = tables.page()
    for said in ("No results yet", "No ledger yet", "No shard has been built yet", "No rows to show", "not yet"):
        assert said in page
    page = tables.page(tables.results([]), tables.ledger([]), tables.runs([]))
    for said in ("The results table has no rows", "The ledger has no entries"):
        assert said in page


def test_only_estimates_so_far(tables: Tables) -> None:
    page = tables.page(ledger=tables.ledger([tables.entry(1, kind="estimate")]))
    assert "Nothing was charged" in page
    assert "Nothing has been processed yet" in page


def test_a_free_run_says_that_nothing_was_charged(tables: Tables) -> None:
    page = tables.page(ledger=tables.ledger([tables.entry(1, amount=Decimal(0))]))
    assert "Nothing was charged" in page
    assert 'data-figure="tokens"' in page
    assert 'data-figure="cost"' not in page


def test_a_missed_deadline_is_said(tables: Tables) -> None:
    run = {"run_id": "run-1", "started": tables.start, "deadline": tables.start + timedelta(hours=2)}
    assert "passed 3 h ago" in tables.page(runs=tables.runs([run]))
    ended = run | {"finished": tables.start + timedelta(hours=2, minutes=30)}
    assert "missed by 30 min" in tables.page(runs=tables.runs([ended]))
    assert "4 h left" in tables.page(deadline=tables.start + timedelta(hours=9))


def test_tables_that_disagree_are_not_glossed_over(tables: Tables) -> None:
    assert "do not agree" not in tables.page(**tables.a_week())
    results = tables.results([tables.row(1), tables.row(2)])
    run = {"run_id": "run-1", "ok": 3, "cost_usd": Decimal("0.75")}
    page = tables.page(results, tables.ledger([tables.entry(1)]), tables.runs([run]))
    assert "The runs table counts 3 rows with status ok, the results table 2." in page
    assert "The runs table says 0.75 USD, the ledger&#39;s entries add up to 0.50 USD." in page


def test_rows_of_another_run_are_named_as_such(tables: Tables) -> None:
    page = tables.page(
        tables.results([tables.row(1, run_id="run-0")]), None, tables.runs([{"run_id": "run-1", "ok": 9}])
    )
    assert "published by run-0; run run-1 has published none yet" in page
    assert "The runs table counts" not in page


def test_the_right_run_is_chosen(tables: Tables) -> None:
    rows = [{"run_id": name, "documents": number} for name, number in (("run-0", 1), ("run-1", 22), ("run-2", 3))]
    assert "from 22 documents" in tables.page(tables.results([tables.row(1)]), None, tables.runs(rows))


def test_a_label_that_looks_like_money_is_left_as_it_is(tables: Tables) -> None:
    labels = ("1.5 stars", "4.25 stars")
    rows = [tables.row(n, operation_kind="classify", label=label) for n, label in enumerate(labels)]
    page = tables.page(tables.results(rows))
    assert "<bdi>1.5 stars</bdi>" in page
    assert "1.50" not in page


def test_forty_labels_are_fifteen_bars_and_a_table(tables: Tables) -> None:
    rows = [tables.row(n, operation="topic", operation_kind="classify", label=f"label {n % 40}") for n in range(1_000)]
    page = tables.page(tables.results(rows))
    figure = page[page.index('data-figure="labels"') :]
    figure = figure[: figure.index("</section>")]
    assert figure.count('class="row"') == 16
    assert "25 other labels" in figure
    assert figure.count("<tr>") == 41


def test_the_same_tables_give_the_same_bytes(tables: Tables) -> None:
    shards = tables.shard_times(40)
    assert tables.page(**tables.a_week(900), shards=shards) == tables.page(**tables.a_week(900), shards=shards)


def test_streams_stay_open_and_nothing_is_written_on_failure(tables: Tables) -> None:
    results, out = tables.results([tables.row(1)]), io.BytesIO()
    with pytest.raises(StoreError, match="the ledger table"):
        write_report(results, io.BytesIO(b"nonsense"), None, out, meta=tables.meta())
    assert out.getvalue() == b""
    assert not results.closed


def test_a_page_over_thousands_of_rows_stays_small(tables: Tables) -> None:
    page = tables.page(**tables.a_week(rows=9_000, shards=500), shards=tables.shard_times(500))
    assert len(page) < 300_000


# Runs in a process of its own, so that its peak is its own, and twice, so that what differs is due to the rows.
PEAK = """
    import io, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from lowtide.report import ReportMeta, write_report

    meta = ReportMeta(job="j", window="all", run_id="r", generated_at=datetime(2026, 1, 1, tzinfo=UTC))
    out = io.BytesIO()
    with Path(sys.argv[1]).open("rb") as results, Path(sys.argv[2]).open("rb") as ledger:
        write_report(results, ledger, None, out, meta=meta)
    # Not getrusage: its peak lives on across exec, and so would be the one of the test run.
    print(next(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM")))
"""


def peak_mib(results: Path, ledger: Path) -> int:
    command = [sys.executable, "-c", textwrap.dedent(PEAK), str(results), str(ledger)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout) // 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_rows(tables: Tables, tmp_path: Path) -> None:
    peaks = {}
    for rows in (50_000, 300_000):
        results, ledger = tmp_path / f"results-{rows}", tmp_path / f"ledger-{rows}"
        tables.write_many(results, ledger, rows)
        peaks[rows] = peak_mib(results, ledger)
    assert (tmp_path / "results-300000").stat().st_size > 50 << 20
    assert peaks[300_000] - peaks[50_000] < 50, peaks


def test_amounts_that_nobody_knows_are_no_zeros(tables: Tables) -> None:
    page = tables.page(**tables.a_week(200, 2), priced=False)
    assert "not known: no price in the job file" in page
    assert "bought no answer that was kept: " not in page
    assert "not known" not in tables.page(**tables.a_week(200, 2))
