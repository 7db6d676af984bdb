"""Caps and approval as a user meets them: the command line, real processes, and an emulated provider with a bill."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from servers.emulators import Emulator, emulators
from support.command import Bench

from lowtide.budget.account import Account, AccountState
from lowtide.budget.rootfile import read_caps
from lowtide.connectors.stores.local import LocalStore

JOB = """
version: 1
name: {name}
source: {{uri: "{folder}/documents/*.txt"}}
operations: [summarize: {{words: 20}}]
backends:
  - openai-batch: {{model: gpt-4o-mini, price: {{input: 1000, output: 2000}}}}
limits: {{shard_records: 2, poll: 1s}}
budget: {budget}
output: {{root: "{root}", tags: {{team: search}}}}
"""
INPUT, OUTPUT = Decimal("0.001"), Decimal("0.002")
USD = Decimal("3.5")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulators(speed=2000.0) as served:
        yield served


@pytest.fixture
def bench(emulator: Emulator, tmp_path: Path) -> Bench:
    emulator.reset()
    made = Bench(tmp_path, environ={"OPENAI_BASE_URL": f"{emulator.url}/v1", "OPENAI_API_KEY": "emulated"})
    (tmp_path / "documents").mkdir()
    for number in range(8):
        (tmp_path / "documents" / f"{number}.txt").write_text(f"The tide rose by {number} metres.", encoding="utf-8")
    return made


def job(bench: Bench, name: str, budget: str = "{}") -> Path:
    path = bench.folder / f"{name}.yaml"
    path.write_text(JOB.format(name=name, folder=bench.folder, root=bench.root, budget=budget), encoding="utf-8")
    return path


def billed(emulator: Emulator) -> Decimal:
    bill = emulator.bill()
    return INPUT * bill["input_tokens"] + OUTPUT * bill["output_tokens"]


def account(bench: Bench) -> AccountState:
    [month] = [path.name for path in (Path(bench.root) / "budget").iterdir()]
    return Account(LocalStore(Path(bench.root)), month, "auditor").refresh()


def ended(process: subprocess.Popen[str]) -> int:
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, 5), out + err
    return process.returncode


def test_two_runs_at_the_same_time_never_pass_a_cap_together(bench: Bench, emulator: Emulator) -> None:
    Path(bench.root).mkdir()
    caps = f"version: 1\ncaps:\n  - {{name: search team, tags: {{team: search}}, month_usd: {USD}}}\n"
    (Path(bench.root) / "lowtide.yaml").write_text(caps, encoding="utf-8")
    jobs = [job(bench, "first"), job(bench, "second")]
    codes = [ended(process) for process in [bench.start("run", str(path), "--direct") for path in jobs]]
    assert 5 in codes
    assert 0 < billed(emulator) <= USD
    [cap] = read_caps(LocalStore(Path(bench.root)))
    state = account(bench)
    assert not state.open
    assert state.room(cap).spent == billed(emulator)
    for path in [*jobs, *jobs]:
        # One may find room now that was held by the other.
        again = bench.lowtide("run", str(path), "--direct")
        assert again.returncode in (0, 3, 5), again.stderr
        assert billed(emulator) <= USD
    assert not account(bench).open
    bought = billed(emulator)
    assert {bench.lowtide("run", str(path), "--direct").returncode for path in jobs} <= {3, 5}
    assert billed(emulator) == bought


def test_a_month_of_a_job_ends_where_its_file_says(bench: Bench, emulator: Emulator) -> None:
    path = job(bench, "first", "{month_usd: 2.5}")
    run = bench.lowtide("run", str(path), "--direct")
    assert run.returncode == 5, run.stderr
    assert billed(emulator) <= Decimal("2.5")
    shown = bench.lowtide("show", str(path), "--status", "skipped", "--json")
    reasons = {row["status_reason"] for row in json.loads(shown.stdout)}
    assert reasons
    assert all(reason.startswith("budget: month_usd 2.50 USD of job first has ") for reason in reasons)


def test_a_root_file_that_cannot_be_read_stops_everything(bench: Bench, emulator: Emulator) -> None:
    Path(bench.root).mkdir()
    (Path(bench.root) / "lowtide.yaml").write_text("version: 1\ncaps: [{name: all, month_usd: ten}]\n")
    run = bench.lowtide("run", str(job(bench, "first")), "--direct")
    assert run.returncode == 2
    assert "lowtide.yaml:2: caps[0].month_usd: found 'ten'; expected an amount in USD" in run.stderr
    assert billed(emulator) == 0


def test_a_run_waits_for_approval_and_goes_on_once_it_has_it(bench: Bench, emulator: Emulator) -> None:
    path = job(bench, "first", "{approve_above_usd: 0.01}")
    begun = bench.lowtide("run", str(path), "--direct", "--no-wait")
    assert begun.returncode == 0, begun.stderr
    [plan] = Path(bench.root).glob("runs/first/all/*/plan.json")
    run = plan.parent.name
    assert f"waiting for approval: lowtide approve {run}" in begun.stderr
    assert emulator.calls()["created"] == []
    waiting = bench.start("run", str(path), "--direct")
    approved = bench.lowtide("approve", run, "--job", str(path))
    assert approved.returncode == 0, approved.stderr
    assert "job        first, window all" in approved.stdout
    assert "where      openai-batch, model gpt-4o-mini" in approved.stdout
    assert "asks above 0.0100 USD" in approved.stdout
    assert ended(waiting) == 0
    assert billed(emulator) > 0
    again = bench.lowtide("approve", str(plan.parent))
    assert again.returncode == 3
    assert "nothing to approve: the run is approved already" in again.stderr


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("what", "'what' is no run; expected its id"),
        ("0123456789abcdef", "job 'first' has no run 0123456789abcdef under file://"),
        ("{root}/runs/first/all/0123456789abcdef", "plan.json: there is no such file, so there is no such run"),
    ],
)
def test_what_is_no_run_is_said(bench: Bench, run: str, said: str) -> None:
    path = job(bench, "first")
    ended = bench.lowtide("approve", run.format(root=bench.root), "--job", str(path))
    assert ended.returncode == 2
    assert said in ended.stderr
    nowhere = bench.lowtide("approve", "0123456789abcdef")
    assert nowhere.returncode == 2
    assert "lowtide.yaml: there is no such file; name the job file" in nowhere.stderr
