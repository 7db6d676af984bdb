"""How commands end, and what they say then: codes, reasons, and the command to type next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers.emulators import Emulator, emulators
from support.command import Bench, write_documents

from lowtide.cli import main
from lowtide.cli.setup import Check, _lines
from lowtide.cli.views import usd

ROWS = """
version: 1
name: tides
source: {uri: ./documents/*.jsonl, text: TEXT, id: key, fields: [key]}
operations: [{summarize: {words: 20}}]
backends: [{local: {model: tfidf}}]
output: {root: ./out}
"""
ASKED = """
version: 1
name: tides
source: {uri: ./documents/*.txt}
operations: [{summarize: {words: 20}}]
backends: [{openai-batch: {model: gpt-4o-mini PRICE}}]
budget: {<BUDGET>}
limits: {attempts: 1, poll: 1s}
output: {root: ./out}
"""
POISON = {"on": "row", "do": "poison", "times": "forever", "match": {"text": "number 0 "}}

Asking = Callable[..., Bench]


@pytest.fixture
def rows(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    (tmp_path / "documents").mkdir()
    lines = [f'{{"body": "Ship {number} left.", "key": "k{number}"}}\n' for number in range(4)]
    (tmp_path / "documents" / "rows.jsonl").write_text("".join(lines))
    bench.job.write_text(ROWS.replace("TEXT", "bodi"))
    return bench


@pytest.fixture(scope="module")
def provider() -> Iterator[Emulator]:
    with emulators(faults={"rules": [POISON]}, speed=3600.0) as emulator:
        yield emulator


@pytest.fixture
def asking(tmp_path: Path, provider: Emulator) -> Asking:
    def made(price: str = "", budget: str = "") -> Bench:
        environ = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "emulated", "COLUMNS": "80"}
        bench = Bench(tmp_path, environ=environ)
        write_documents(tmp_path / "documents", 3)
        bench.job.write_text(ASKED.replace(" PRICE", price).replace("<BUDGET>", budget))
        return bench

    return made


def test_a_run_that_could_ask_nothing_is_no_success_the_first_time_or_the_second(rows: Bench) -> None:
    first, second = rows.run(), rows.run()
    assert (first.returncode, second.returncode) == (4, 4)
    assert "warning: nothing was asked: all 4 rows were skipped" in first.stderr
    assert "why        4 skipped: no field 'bodi'" in first.stdout
    assert "none of these documents can be asked" in second.stderr
    assert "asked these questions before" not in second.stderr
    rows.job.write_text(rows.job.read_text().replace("bodi", "body"))
    assert [rows.run().returncode for _ in range(2)] == [0, 3]


def test_show_says_how_to_begin_and_names_rows_by_their_key(rows: Bench) -> None:
    rows.job.write_text(rows.job.read_text().replace("bodi", "body"))
    for command in ("show", "report", "status"):
        nothing = rows.lowtide(command, str(rows.job), "--window", "2026")
        assert nothing.returncode == 2
        assert f"start one with: lowtide run {rows.job} --window 2026" in nothing.stderr
    assert rows.run().returncode == 0
    assert "rows.jsonl · k1\n" in rows.lowtide("show", str(rows.job)).stdout


def test_a_run_with_failed_rows_says_why_and_what_to_do_and_the_same_again_does_too(asking: Asking) -> None:
    bench = asking()
    for _ in range(2):
        ended = bench.run()
        assert ended.returncode == 4, ended.stderr
        [why] = [line for line in ended.stdout.splitlines() if line.startswith("why ")]
        assert why.startswith("why        1 error: ")
        assert len(why) <= 80
        assert f"next       lowtide show {bench.job} --status error\n" in ended.stdout
    assert "Nothing new, nothing bought" in ended.stderr


def test_rows_that_the_budget_left_out_are_not_said_to_have_been_asked(asking: Asking) -> None:
    bench = asking(", price: {input: 1, output: 1}", "run_usd: 0.000001")
    first, second = bench.run(), bench.run()
    assert (first.returncode, second.returncode) == (5, 5)
    assert "asked these questions before" not in second.stderr
    assert "the budget does not allow" in second.stderr


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0", "0.0000 USD"),
        ("1234.5", "1,234.5000 USD"),
        ("0.0006", "0.0006 USD"),
        ("0.00004", "0.000040 USD"),
        ("0.0000123", "0.000012 USD"),
        ("0.000000000001", "0.000000000001 USD"),
    ],
)
def test_a_sum_has_the_digits_that_it_needs(amount: str, said: str) -> None:
    assert usd(Decimal(amount)) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "99999"], "99999 is not in the range"),
        (["--port", "-1"], "-1 is not in the range"),
        (["--speed", "nan"], "found nan"),
        (["--speed", "inf"], "found inf"),
        (["--speed", "0"], "found 0.0"),
    ],
)
def test_emulate_refuses_what_it_cannot_do(options: list[str], said: str) -> None:
    ended = CliRunner().invoke(main, ["emulate", *options])
    assert ended.exit_code == 2
    assert said in ended.output
    assert ended.exception is None or isinstance(ended.exception, SystemExit)


def test_a_finding_is_wrapped_at_words_under_its_own_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    found = "the quota cannot be seen from here, " + "so a shard holds at most 15,000,000 tokens " * 3
    lines = list(_lines(Check("enqueued tokens", True, found), 20, 80))
    assert lines[0].startswith("?     enqueued tokens       the quota")
    assert max(map(len, lines)) <= 80
    assert len(lines) > 2
    assert {line[:28] for line in lines[1:]} == {" " * 28}
    assert " ".join(" ".join(lines).split()[3:]) == found.strip()
    marks = [next(_lines(Check("a", ok, "b"), 1, 80))[:4] for ok in (True, False)]
    assert marks == ["ok  ", "fail"]


@pytest.mark.parametrize("command", ["plan", "run"])
def test_no_cache_and_refresh_together_are_refused(command: str) -> None:
    ended = CliRunner().invoke(main, [command, "none.yaml", "--no-cache", "--refresh"])
    assert ended.exit_code == 2
    assert "--no-cache and --refresh: one of them" in ended.stderr
