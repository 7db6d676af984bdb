"""`lowtide ledger`: what it prints, what it exports, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from support.command import Bench, write_documents
from support.ledgers import at, entry, path_of, write_ledger

from lowtide.cli import main
from lowtide.connectors.stores.local import LocalStore

JOB = """
version: 1
name: tides
source: {uri: ./documents/*.txt}
operations: [{summarize: {words: 20}}]
backends: [{local: {model: tfidf}}]
output: {root: ./root}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """The root of the job file in the current folder."""
    (tmp_path / "lowtide.yaml").write_text(JOB, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return LocalStore(tmp_path / "root", sync="none")


@pytest.fixture
def lowtide(root: LocalStore) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(main, ["ledger", *arguments])


def fill(root: LocalStore) -> None:
    """Two jobs, one of them billed, with waste and with answers that were there already."""
    rows = [entry("estimate", quantity=9), entry(quantity=1_000_000, realtime_amount=Decimal(2))]
    rows += [entry(quantity=50_000, waste="expired", realtime_amount=Decimal("0.1")), entry("saved", quantity=7_000)]
    rows.append(entry(token_type="output", quantity=3, unit_price=Decimal("0.000000000001"), period_start=at(21)))
    write_ledger(root, rows, path_of("run-1"))
    write_ledger(root, [entry("billed", quantity=1_060_000)], path_of("run-1.billed-1"))
    legal = entry(quantity=5, run_id="run-2", model="gpt-5-mini", tags={"team": "legal"}, period_start=at(1, month=12))
    write_ledger(root, [legal], path_of("run-2", "mails"))


def test_a_root_is_summed_by_job(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    found = lowtide()
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines() == [
        "job: tokens      input  output   waste",
        "mails                5       0       0",
        "tickets      1,050,000       3  50,000",
        "total        1,050,005       3  50,000",
        "",
        "job: USD     amount   waste  real time   saved  by cache  billed   drift",
        "mails     0.0000050       0          ?       ?         0       ?       ?",
        "tickets      1.0500  0.0500     2.1000  1.0500    0.0070  1.0600  0.0100",
        "total        1.0500  0.0500     2.1000  1.0500    0.0070  1.0600  0.0100",
    ]
    assert "no price on demand is known for 2 entries" in found.stderr


def test_json_and_csv_have_every_digit(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    found = json.loads(lowtide("--by", "job", "--by", "tag:team", "--json").stdout)
    assert [line["keys"] for line in found["lines"]] == [
        {"job": "mails", "tag:team": "legal"},
        {"job": "tickets", "tag:team": "support"},
    ]
    assert found["lines"][1]["amount"] == "1.050000000003"
    [total] = found["totals"]
    assert (total["amount"], total["output_tokens"], total["saved_cache"]) == ("1.050005000003", 3, "0.007000000000")
    rows = list(csv.DictReader(io.StringIO(lowtide("--by", "job", "--csv").stdout)))
    assert [(row["job"], row["amount"], row["billed"]) for row in rows] == [
        ("mails", "0.000005", ""),
        ("tickets", "1.050000000003", "1.06"),
    ]


def test_time_and_jobs_are_chosen(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)

    def days(*options: str) -> list[str]:
        lines = json.loads(lowtide("--by", "day", "--json", *options).stdout)["lines"]
        return [line["keys"]["day"] for line in lines]

    assert days() == ["2026-11-20", "2026-11-21", "2026-12-01"]
    assert days("--since", "2026-11-21") == ["2026-11-21", "2026-12-01"]
    assert days("--since", "2026-11", "--until", "2026-12") == ["2026-11-20", "2026-11-21"]
    assert days("--until", "2026-11-21") == ["2026-11-20"]
    assert days("--only", "mails") == ["2026-12-01"]
    assert days("--since", "2026-W48", "--only", "mails", "--only", "tickets") == ["2026-12-01"]


def test_every_line_fits_into_80_columns_and_no_name_is_cut_at_its_end(
    root: LocalStore, lowtide: Callable[..., Result]
) -> None:
    huge = {"quantity": 10**13, "unit_price": Decimal("1.234567890123"), "realtime_amount": Decimal(10) ** 20}
    types = ("input", "cached_input", "cache_write", "output", "reasoning")
    rows = [entry(token_type=name, model="a-model-" * 9 + end, **huge) for name in types for end in ("one", "two")]
    rows += [entry("saved", **huge), entry("billed", **huge), entry("actual", waste="lost", model="x\x1b[31m")]
    write_ledger(root, rows)
    shown = lowtide("--by", "model", "--by", "tag:team").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    for end in ("one / support", "two / support"):
        assert sum(line.partition("  ")[0].endswith(end) for line in shown.splitlines()) > 2


def test_a_root_without_a_ledger_says_what_comes_first(lowtide: Callable[..., Result]) -> None:
    for command in ([], ["export", "--focus", "1.2"]):
        found = lowtide(*command)
        assert found.exit_code == 3
        assert "there is no ledger" in found.stderr
        assert "`lowtide run` comes first" in found.stderr
        assert found.stdout == ""


def test_a_time_in_which_there_was_nothing_is_told_apart(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    found = lowtide("--since", "2027")
    assert found.exit_code == 3
    assert "none of the 3 ledgers" in found.stderr


def test_another_root_needs_no_job_file(root: LocalStore, tmp_path: Path) -> None:
    fill(root)
    (tmp_path / "lowtide.yaml").unlink()
    found = CliRunner().invoke(main, ["ledger"])
    assert (found.exit_code, "--root" in found.stderr) == (2, True)
    assert CliRunner().invoke(main, ["ledger", "--root", str(tmp_path / "root")]).exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--by", "colour"], "--by: found 'colour'; expected one of day, job"),
        (["--since", "yesterday"], "--since: found 'yesterday'; expected a day, week"),
        (["--until", "2026-11..2026-12"], "--since and --until make a range together"),
        (["--since", "2026-12", "--until", "2026-11"], "nothing lies between them"),
        (["--json", "--csv"], "--json and --csv"),
        (["--job", "lowtide.yaml", "--root", "root"], "--job and --root"),
        (["export", "--focus", "1.2", "--out", "focus.xlsx"], "ends in .parquet or .csv"),
        (["export", "--focus", "1.2", "--out", "nowhere/focus.csv"], "nowhere/focus.csv: cannot be written"),
        (["export", "--focus", "1.1"], "'1.1' is not '1.2'"),
        (["check", "nowhere.csv"], "nowhere.csv: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_and_ends_with_2(
    root: LocalStore, lowtide: Callable[..., Result], options: list[str], said: str
) -> None:
    fill(root)
    found = lowtide(*options)
    assert (found.exit_code, said in found.stderr) == (2, True), found.stderr


def test_a_broken_ledger_is_named(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    root.write(path_of("run-9"), b"no parquet")
    found = lowtide()
    assert found.exit_code == 1
    assert "window=2026-11/run-9.parquet: the ledger cannot be read" in found.stderr


@pytest.mark.parametrize("name", ["bill.parquet", "bill.csv"])
def test_an_export_is_checked_and_adds_up_to_the_ledger(
    root: LocalStore, lowtide: Callable[..., Result], name: str
) -> None:
    fill(root)
    found = lowtide("export", "--focus", "1.2", "--out", name, "--account", "4711")
    assert found.exit_code == 0, found.stderr
    assert f"{name}: 4 rows of FOCUS 1.2" in found.stderr
    assert lowtide("check", name).exit_code == 0
    path = Path(name)
    rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else list(csv.DictReader(path.open(newline="")))
    assert sum(Decimal(str(row["BilledCost"])) for row in rows) == Decimal("1.050005000003")
    assert {row["BillingAccountId"] for row in rows} == {"4711"}
    assert sorted(path.name for path in Path().iterdir()) == sorted(["lowtide.yaml", "root", name])


def test_an_export_of_the_bills_and_options_before_its_name(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    found = lowtide(
        "--only", "tickets", "--since", "2026-11", "export", "--focus", "1.2", "--basis", "billed", "--out", "-"
    )
    [row] = csv.DictReader(io.StringIO(found.stdout))
    assert (row["BilledCost"], row["x_Job"]) == ("1.06", "tickets")


def test_nothing_is_written_by_an_export_that_breaks_a_rule(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    write_ledger(root, [entry(), entry(currency="Dollars")])
    before = Path("focus.parquet")
    before.write_bytes(b"what was there")
    found = lowtide("export", "--focus", "1.2")
    assert found.exit_code == 1
    assert "internal error" in found.stderr
    assert "row 2: BillingCurrency.code" in found.stderr
    assert before.read_bytes() == b"what was there"
    assert sorted(path.name for path in Path().iterdir()) == ["focus.parquet", "lowtide.yaml", "root"]


def test_a_cost_that_nobody_knows_is_pointed_out(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    write_ledger(root, [entry(price_id="nova batch: no price", unit_price=Decimal(0))])
    assert "no price is known for 1,000 tokens" in lowtide().stderr
    assert "1 rows have no known price" in lowtide("export", "--focus", "1.2").stderr


def test_each_broken_rule_is_a_line_and_the_code_is_2(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    lowtide("export", "--focus", "1.2", "--out", "bill.csv")
    text = Path("bill.csv").read_text(encoding="utf-8")
    Path("bill.csv").write_text(text.replace("AI and Machine Learning", "AI"), encoding="utf-8")
    found = lowtide("check", "bill.csv")
    assert found.exit_code == 2
    lines = found.stdout.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("row 1: ServiceCategory.allowed: is one of AI and Machine Learning")
    assert "8 violations" in found.stderr


def test_pandas_adds_up_to_the_same_as_the_guide_says(
    root: LocalStore, lowtide: Callable[..., Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(root)
    (tmp_path / "out").symlink_to(tmp_path / "root")
    guide = (Path(__file__).parents[3] / "docs/guides/ledger.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    exec(snippet, {})  # noqa: S102 - the guide's own example
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines()[1:-1])
    rows = csv.DictReader(io.StringIO(lowtide("--by", "model", "--csv").stdout))
    assert {model: Decimal(amount) for model, amount in printed.items()} == {
        row["model"]: Decimal(row["amount"]) for row in rows
    }


def test_what_a_run_writes_is_what_is_summed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    write_documents(tmp_path / "documents", 4)
    assert bench.run().returncode == 0
    found = bench.lowtide("ledger", "--job", str(bench.job), "--by", "model", "--json")
    assert found.returncode == 0, found.stderr
    [total] = json.loads(found.stdout)["totals"]
    billed = bench.billed()
    assert (total["input_tokens"], total["output_tokens"]) == (billed["input"], billed["output"])
    assert bench.lowtide("ledger", "export", "--job", str(bench.job), "--focus", "1.2").returncode == 0
    assert bench.lowtide("ledger", "check", "focus.parquet").returncode == 0


def test_a_reader_that_has_gone_is_no_error_of_the_file(root: LocalStore, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("BilledCost\n" + "much\n" * 40_000, encoding="utf-8")
    check = f"{shlex.quote(sys.executable)} -m lowtide ledger check broken.csv | head -n 1"
    ended = subprocess.run(
        ["bash", "-c", check], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert ended.stdout.count("\n") == 1
    assert "cannot be read" not in ended.stderr


def test_a_single_ledger_without_such_an_entry_is_said_in_the_singular(
    root: LocalStore, lowtide: Callable[..., Result]
) -> None:
    write_ledger(root, [entry("estimate")])
    found = lowtide()
    assert found.exit_code == 3
    assert "the only ledger under" in found.stderr
    assert "--since" not in found.stderr, "what nobody gave cannot be left out"
    assert "try without --until" in lowtide("--until", "2026-10").stderr


def test_lines_of_several_long_keys_can_be_told_apart_in_80_columns(
    root: LocalStore, lowtide: Callable[..., Result]
) -> None:
    long = "a-model-with-a-rather-long-name-of-version-"
    rows = [entry(run_id=f"{run:032x}", model=f"{long}{at}{long}") for run in (1, 2) for at in (1, 2)]
    write_ledger(root, rows)
    found = lowtide("--by", "run", "--by", "model", "--by", "token")
    assert found.exit_code == 0, found.output
    lines = found.stdout.split("\n\n")[0].splitlines()[1:-1]
    assert len(set(lines)) == len(lines) == 4
    assert all(" / input" in line for line in lines)
    assert max(map(len, found.stdout.splitlines())) <= 80


def test_a_key_that_is_given_twice_is_refused(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    found = lowtide("--by", "kind", "--by", "kind")
    assert found.exit_code == 2
    assert "--by: kind is given twice" in found.stderr


def test_sums_by_kind_say_what_is_in_the_total(root: LocalStore, lowtide: Callable[..., Result]) -> None:
    fill(root)
    assert "the totals add up what was processed (actual)" in lowtide("--by", "kind").stderr
    assert "(actual)" not in lowtide("--by", "job").stderr
