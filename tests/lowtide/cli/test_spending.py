"""`lowtide spend`: what it draws in a terminal, what it writes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from lowtide.budget.account import Account, Payer, Settle
from lowtide.cli.spending import spend
from lowtide.connectors.stores import open_store
from lowtide.schemas import LEDGER

JOB = """
version: 1
name: tides
source: {uri: ./documents/*.txt}
operations: [{summarize: {words: 20}}]
backends: [{local: {model: tfidf}}]
budget: {month_usd: 40}
output: {root: ./root}
"""
CAPS = """
version: 1
caps:
  - {name: sea team, tags: {team: sea}, month_usd: 30}
  - {name: everything, month_usd: 20}
"""
ESCAPE = "\x1b"


def entry(number: int, day: int, usd: str, **values: object) -> dict[str, object]:
    at = datetime(2026, 10, day, 6, tzinfo=UTC)
    known: dict[str, object] = {
        "entry_id": f"e{number}",
        "at": at,
        "period_start": at,
        "run_id": f"r{day}",
        "kind": "actual",
        "token_type": "input",
        "quantity": 1_000,
        "amount": Decimal(usd),
        "realtime_amount": 2 * Decimal(usd),
        "currency": "USD",
        "price_id": "haiku batch",
        "tags": [("team", "sea")],
    }
    return known | values


def write(root: Path, job: str, rows: list[dict[str, object]]) -> None:
    path = root / f"tables/ledger/job={job}/window=all/r.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=LEDGER), path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """October under one root: two jobs, waste, the cache, and a reservation that is open."""
    made = tmp_path / "root"
    rows = [entry(day, day, f"{day}.5") for day in (2, 5, 9)]
    rows += [entry(20, 5, "0.25", waste="expired"), entry(21, 9, "3", kind="saved")]
    write(made, "tides", rows)
    write(made, "bread", [entry(1, 5, "1.75", tags=None)])
    account = Account(open_store(str(made)), "2026-10", "me")
    for job, tags, attempt, usd in (("tides", {"team": "sea"}, "a", "17.75"), ("bread", {}, "b", "1.75")):
        payer = Payer(f"runs/{job}/all/r", job, tags)
        assert not account.reserve(payer, attempt, Decimal(usd), (), at=1.0)
        account.close(payer, [Settle(attempt, Decimal(usd))], at=2.0)
    assert not account.reserve(Payer("runs/tides/all/r", "tides", {"team": "sea"}), "c", Decimal("2.5"), (), at=3.0)
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    return made


def ran(*arguments: str, columns: str = "80") -> Result:
    return CliRunner(env={"COLUMNS": columns}).invoke(spend, list(arguments))


def test_the_terminal_shows_the_numbers_of_the_ledgers(root: Path) -> None:
    (root / "lowtide.yaml").write_text(CAPS, encoding="utf-8")
    done = ran("--root", str(root), "--month", "2026-10")
    assert done.exit_code == 0, done.output
    for said in (
        "spent      19.50 USD in 4 runs, 5,000 tokens; 0.25 USD (1.3 %) in vain",
        "reserved   2.50 USD by batches that are out",
        "saved      19.50 USD (50 %) less than in real time",
        "saved      3.00 USD by the cache, 1,000 tokens",
        "most on 9 Oct: 9.50 USD; waste on 1 day",
    ):
        assert said in done.output
    assert "forecast" not in done.output
    assert re.search(r"^tides .* 17\.75 USD  no cap known$", done.output, re.MULTILINE)
    assert re.search(r"^bread .* 1\.75 USD  no cap known$", done.output, re.MULTILINE)
    assert re.search(
        r"^sea team .* 17\.75 USD  of 30\.00 USD\n +2\.50 USD reserved, 9\.75 USD left$", done.output, re.M
    )
    assert re.search(
        r"^everything .* 19\.50 USD  of 20\.00 USD\n +2\.50 USD reserved, 2\.00 USD over$", done.output, re.M
    )
    assert "the account that stops runs" not in done.output


def test_bars_are_as_long_as_what_they_stand_for(root: Path) -> None:
    (root / "lowtide.yaml").write_text(CAPS, encoding="utf-8")
    lines = ran("--root", str(root), "--month", "2026-10").output.splitlines()
    bars = {line.split()[0]: line[19:37] for line in lines if "█" in line and "USD" in line}
    assert bars["tides"].count("█") == round(18 * 17.75 / 20.25)
    assert bars["sea"].count("█") == round(18 * 17.75 / 30)
    assert bars["sea"].count("▒") == round(18 * 2.5 / 30)
    assert all(len(bar) == 18 for bar in bars.values())
    days = lines[lines.index("day by day") + 4]
    assert [place // 2 + 1 for place in range(0, len(days), 2) if days[place] != " "] == [2, 5, 9]


def test_the_job_that_is_given_brings_its_own_cap(root: Path) -> None:
    done = ran(str(root.parent / "job.yaml"), "--month", "2026-10")
    assert done.exit_code == 0, done.output
    assert re.search(r"^tides .* 17\.75 USD  44\.4 % of 40\.00 USD$", done.output, re.MULTILINE)
    assert re.search(r"^bread .* no cap known$", done.output, re.MULTILINE)
    assert "tides month_usd" in done.output


def test_a_large_cap_fits_as_well(root: Path) -> None:
    job = root.parent / "job.yaml"
    job.write_text(JOB.replace("month_usd: 40", "month_usd: 123456"), encoding="utf-8")
    done = ran(str(job), "--month", "2026-10")
    [line] = [line for line in done.output.splitlines() if line.startswith("tides ") and "%" in line]
    assert line.endswith("of 123,456.00 USD")
    assert len(line) <= 80


def test_a_root_without_caps_says_so(root: Path) -> None:
    assert "No cap is known" in ran("--root", str(root), "--month", "2026-10").output


def test_a_month_without_spending_is_no_error(root: Path) -> None:
    done = ran("--root", str(root), "--month", "2026-09")
    assert done.exit_code == 0
    assert "spent      nothing: no ledger has an entry of this month" in done.output
    assert "day by day" not in done.output
    fresh = ran("--root", str(root.parent / "nothing"))
    assert fresh.exit_code == 3
    assert fresh.stdout == ""
    assert "there is no ledger under" in fresh.stderr


@pytest.mark.parametrize("columns", ["80", "200"])
def test_it_fits_the_terminal(root: Path, columns: str) -> None:
    (root / "lowtide.yaml").write_text(CAPS.replace("sea team", "x" * 150), encoding="utf-8")
    write(root, "a-" + "long-" * 30 + "name", [entry(1, 5, "123456.789", tags=None)])
    done = ran("--root", str(root), "--month", "2026-10", columns=columns)
    # Addresses and notes are whole, so that they can be copied.
    lines = [line for line in done.output.splitlines() if not line.startswith(("root", "note"))]
    assert max(map(len, lines)) <= 80


def test_json_page_and_terminal_are_of_one_record(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "october.html"
    done = ran("--root", str(root), "--month", "2026-10", "--json", "--html", str(page))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert Decimal(found["total"]["spent_usd"]) == Decimal("19.5")
    assert {job["job"]: Decimal(job["wasted_usd"]) for job in found["jobs"]} == {"tides": Decimal("0.25"), "bread": 0}
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    values = {Decimal(value) for value in re.findall(r'<data class="big" value="([\d.]+)"', text)}
    assert {
        Decimal(found["total"][name]) for name in ("spent_usd", "saved_usd", "cached_usd", "reserved_usd")
    } <= values


def test_only_a_page_is_written_when_a_page_is_asked_for(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "october.html"
    done = ran("--root", str(root), "--month", "2026-10", "--html", str(page))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{page}\n")
    assert page.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--month", "soon"), "--month 'soon' is no month: write it like 2026-11"),
        (("job.yaml", "--root", "root"), "JOB and --root: one of them; a job file names its root"),
        (("--html", "no/such/folder/x.html", "--root", "root"), "cannot be written: No such file or directory"),
        (("missing.yaml",), "missing.yaml"),
    ],
)
def test_bad_input_ends_with_two(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(root.parent)
    done = ran(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_cap_file_that_is_wrong_is_not_passed_over(root: Path) -> None:
    (root / "lowtide.yaml").write_text("version: 1\ncaps: [{name: all, month_usd: lots}]\n", encoding="utf-8")
    done = ran("--root", str(root), "--month", "2026-10")
    assert done.exit_code == 2
    assert "lowtide.yaml:2" in done.stderr


def test_names_cannot_steer_the_terminal(root: Path) -> None:
    write(root, f"x{ESCAPE}[2Jy\r\u202e", [entry(1, 5, "50", tags=None)])
    done = ran("--root", str(root), "--month", "2026-10")
    assert done.exit_code == 0, done.output
    assert ESCAPE not in done.output
    assert "\r" not in done.output
    assert "50.00 USD" in done.output


def drawn(root: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = "import lowtide.cli.spending as s; s.spend()"
    arguments = ["--root", str(root), "--month", "2026-10"]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, "-c", command, *arguments],
        capture_output=True,
        check=True,
        timeout=120,
        env=kept | {"COLUMNS": "80"} | environ,
    )


def test_what_is_not_a_terminal_gets_no_colour(root: Path) -> None:
    assert ESCAPE.encode() not in drawn(root).stdout
    assert ESCAPE.encode() in drawn(root, FORCE_COLOR="1", TERM="xterm-256color").stdout


def test_an_encoding_without_blocks_gets_letters(root: Path) -> None:
    out = drawn(root, PYTHONIOENCODING="ascii").stdout
    out.decode("ascii")
    assert b"#####" in out
