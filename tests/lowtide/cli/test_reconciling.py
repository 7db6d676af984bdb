"""`lowtide reconcile`: an emulated provider's bill, in the layouts of real ones, against the ledgers of real runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from faults.scene import SPEED, Scene, environment, make_bucket, write_job
from servers.emulators import Emulator, emulators
from support import bills
from support.bills import Used
from support.ledgers import entry, write_ledger

from lowtide.connectors.stores.local import LocalStore

DOCUMENTS = 600
FAULTS = (
    {"on": "row", "do": "lose", "times": 11},
    {"on": "row", "do": "malform", "times": 7, "after": 40},
    {"on": "create", "do": "reset_after", "times": 1},
    {"on": "process", "do": "partial", "times": 1},
)
PRICES = {"input": "0.075", "cached_input": "0.0375", "output": "0.30"}
ON_DEMAND = {"input": "0.15", "cached_input": "0.075", "output": "0.60"}


@dataclass
class Ran:
    """A finished run, and the bill that the emulator has kept of it."""

    root: Path
    used: list[Used]
    waste: set[str]

    def bill(self, folder: Path, used: Sequence[Used] | None = None) -> Path:
        """The bill, or this one, as a file in the layout of the run's provider."""
        lines = self.used if used is None else used
        if self.used[0].provider == "aws":
            return bills.write_cur(folder / "cur.parquet", bills.cur_rows(lines))
        return bills.write_csv(folder / "costs.csv", bills.AZURE_EA, bills.azure_rows(lines), bom=True)

    def reconcile(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command, in a terminal of 80 columns."""
        return lowtide("reconcile", "--root", str(self.root), *map(str, arguments))

    def ledger(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.root / "tables/ledger").to_pylist()
        return rows

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (self.root / "tables/ledger").rglob("*.parquet")}


def lowtide(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lowtide", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


@pytest.fixture(scope="module")
def running(moto_url: str) -> Iterator[Emulator]:
    with emulators(s3_url=moto_url, speed=SPEED) as found:
        yield found


@pytest.fixture(scope="module", params=["azure-batch", "bedrock"])
def made(
    request: pytest.FixtureRequest, running: Emulator, moto_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    """A run with results that are lost, broken, asked twice and cut short."""
    backend = request.param
    bucket = f"bills-{uuid.uuid4().hex}"
    if backend == "bedrock":
        make_bucket(moto_url, bucket)
    folder = tmp_path_factory.mktemp(backend) / "job"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(backend, running.url, moto_url).items():
            patch.setenv(name, value)
        running.reset()
        running.settings(
            bedrock={"latency": {"submitted": 5, "validating": 5, "scheduled": 5, "in_progress": 20, "stopping": 10}},
            openai={"validating_seconds": 5, "processing_seconds": 20, "finalizing_seconds": 5, "azure_usage": True},
        )
        running.faults(FAULTS, seed=3)
        scene = Scene(
            backend, running, write_job(folder, backend, documents=DOCUMENTS, shard_records=200, bucket=bucket)
        )
        scene.documents = DOCUMENTS
        ended = scene.finish()
        assert all(running.struck()), "a fault that never struck proves nothing"
    actual = [row for row in ended.ledger if row["kind"] == "actual"]
    first = min(row["period_start"] for row in actual).astimezone(UTC)
    assert first.date() == max(row["period_end"] for row in actual).astimezone(UTC).date(), "ran over midnight"
    return Ran(folder / "out", charged(running.bill(), actual[0], first), set(ended.waste()))


def charged(bill: dict[str, Any], like: dict[str, Any], at: datetime) -> list[Used]:
    """What the emulator has charged, at the job's prices, in lines of a day."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    used = []
    for total in bill["totals"]:
        batch = total["tier"] == "batch"
        counts = {
            "input": total["input_tokens"] - total["cached_tokens"],
            "cached_input": total["cached_tokens"],
            "output": total["output_tokens"],
        }
        for kind, quantity in counts.items():
            cost = Decimal((PRICES if batch else ON_DEMAND)[kind]) / 10**6 * quantity
            mode = "batch" if batch else "on_demand"
            if quantity:
                used.append(Used(like["provider"], like["region"], like["model"], kind, mode, day, quantity, cost))
    return used


Change = Callable[[list[Used]], None]


def test_the_emulators_bill_is_the_ledger_and_is_booked_once(made: Ran, tmp_path: Path) -> None:
    assert made.waste, "without waste there is little to be wrong about"
    bill, before = made.bill(tmp_path), made.files()

    ended = made.reconcile("--bill", bill)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "drift      none" in ended.stdout
    assert f"bill       {bill.name} (" in ended.stdout
    rows = made.ledger()
    booked = [row for row in rows if row["kind"] == "billed"]
    assert sum(row["quantity"] for row in booked) == sum(one.quantity for one in made.used)
    assert sum(row["quantity"] for row in rows if row["kind"] == "actual") == sum(row["quantity"] for row in booked)
    assert {path: data for path, data in made.files().items() if path in before} == before

    again = made.reconcile("--bill", bill)
    assert again.returncode == 0
    assert "nothing new: the ledger holds this bill already" in again.stdout
    assert made.ledger() == rows


def more(used: list[Used]) -> None:
    used[-1] = replace(used[-1], quantity=used[-1].quantity + 1, cost=used[-1].cost + Decimal("0.0000003"))


def dearer(used: list[Used]) -> None:
    used[0] = replace(used[0], cost=used[0].cost + 1)


def fewer(used: list[Used]) -> None:
    used.pop()


def another(used: list[Used]) -> None:
    other = {"aws": "amazon.nova-micro-v1:0", "azure": "gpt-4o"}[used[0].provider]
    used.append(replace(used[0], model=other, quantity=77))


@pytest.mark.parametrize(
    ("change", "kind", "at"),
    [(more, "changed", -1), (dearer, "price", 0), (fewer, "missing", -1), (another, "extra", 0)],
)
def test_a_line_that_differs_is_shown_with_file_row_day_model_and_kind(
    made: Ran, change: Change, kind: str, at: int, tmp_path: Path
) -> None:
    used = list(made.used)
    change(used)
    bill = made.bill(tmp_path, used)

    ended = made.reconcile("--bill", bill, "--dry-run")

    assert ended.returncode == 4
    lines = ended.stdout.splitlines()
    [shown] = [number for number, line in enumerate(lines) if line.startswith(kind)]
    assert max(map(len, lines)) <= 80
    assert str(made.used[0].start.date()) in lines[shown]
    assert made.used[at].token_type in lines[shown + 1]
    assert made.used[at].mode.replace("_", " ") in lines[shown + 1]
    assert bill.name in lines[0]

    data = json.loads(made.reconcile("--bill", bill, "--dry-run", "--json").stdout)
    [drift] = data["drift"]
    assert (drift["kind"], drift["token_type"]) == (kind, made.used[at].token_type)
    assert (data["clean"], data["written"]["dry_run"]) == (False, True)
    if kind == "missing":
        assert drift["tokens"] == -made.used[-1].quantity
    else:
        assert (drift["file"], drift["row"]) == (bill.name, row_of(bill, used, -1 if kind == "extra" else at))


def row_of(bill: Path, used: list[Used], at: int) -> int:
    """Where that line stands: behind a line of another service, and in a CSV file behind the heading."""
    return range(len(used))[at] + (2 if bill.suffix == ".parquet" else 3)


def test_what_is_not_understood_is_listed_until_it_is_explained(made: Ran, tmp_path: Path) -> None:
    bill = made.bill(tmp_path)
    if bill.suffix == ".parquet":
        rows = bills.cur_rows(made.used)
        rows[1]["line_item_usage_type"] = rows[1]["line_item_usage_type"].replace("NovaLite", "Tidal")
        bills.write_cur(bill, rows)
    else:
        lines = bills.azure_rows(made.used)
        lines[1]["MeterName"] = lines[1]["MeterName"].replace("gpt-4o-mini-0718", "Tidal")
        bills.write_csv(bill, bills.AZURE_EA, lines)

    ended = made.reconcile("--bill", bill, "--dry-run")
    assert ended.returncode == 4
    assert "not understood" in ended.stdout
    assert "no model known by 'tidal'" in ended.stdout.lower()
    assert "pass --map FILE" in ended.stdout

    names = tmp_path / "map.yaml"
    names.write_text(f'models: {{"*tidal-*": "{made.used[0].model}"}}\n')
    explained = made.reconcile("--bill", bill, "--map", names, "--dry-run")
    assert (explained.returncode, explained.stderr) == (0, "")


def test_a_tolerance_lets_small_drift_pass_and_shows_it(made: Ran, tmp_path: Path) -> None:
    used = list(made.used)
    more(used)
    ended = made.reconcile("--bill", made.bill(tmp_path, used), "--tolerance", "0.01", "--dry-run")
    assert ended.returncode == 0
    assert "changed" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bill", "none.csv"), "error: none.csv: cannot be read: No such file"),
        (("--bill", "BILL", "--tolerance", "much"), "--tolerance: found 'much'"),
        (("--bill", "BILL", "--map", "none.yaml"), "none.yaml: cannot be read"),
        (("--bill", "BILL", "--since", "2026-13-01"), "--since: found '2026-13-01'"),
        (("--bill", "BILL", "--since", "2026-11-20T05"), "bills go by days"),
        (("--bill", "BILL", "--since", "2026-11-20", "--until", "2026-11"), "nothing lies between them"),
        (("--bill", "BILL", "--bill", "BILL"), "hold the same: give each file of a bill once"),
        (("job.yaml", "--bill", "BILL"), "JOB and --root: one of them"),
        ((), "Missing option '--bill'"),
    ],
)
def test_what_cannot_be_used_is_named_with_exit_code_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    bill = bills.write_cur(tmp_path / "cur.parquet", bills.cur_rows([]))
    given = [str(bill) if word == "BILL" else word for word in arguments]
    ended = lowtide("reconcile", "--root", str(tmp_path / "root"), *given)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_line_is_named_with_exit_code_2(tmp_path: Path) -> None:
    rows = bills.cur_rows(
        [Used("aws", "us-east-1", "amazon.nova-lite-v1:0", "input", "batch", bills.NOW, 9, Decimal(1))]
    )
    rows[1]["line_item_currency_code"] = "EUR"
    bill = bills.write_cur(tmp_path / "cur.parquet", rows)
    write_ledger(LocalStore(tmp_path / "root", sync="none"), [entry()])
    ended = lowtide("reconcile", "--root", str(tmp_path / "root"), "--bill", str(bill))
    assert ended.returncode == 2
    assert "error: cur.parquet:2: line_item_currency_code: found 'EUR'; the ledger is in USD" in ended.stderr


def test_the_root_is_the_jobs_unless_another_is_given(tmp_path: Path) -> None:
    used = [Used("aws", "us-east-1", "amazon.nova-lite-v1:0", "input", "batch", bills.NOW, 9, Decimal(1))]
    bill = bills.write_cur(tmp_path / "cur.parquet", bills.cur_rows(used))
    (tmp_path / "job.yaml").write_text(
        "version: 1\nname: tides\nsource: {uri: ./*.txt}\noperations: [{summarize: {words: 9}}]\n"
        "backends: [{local: {model: tfidf}}]\noutput: {root: ./out}\n"
    )
    command = ("reconcile", str(tmp_path / "job.yaml"), "--bill", str(bill))
    nowhere = lowtide(*command)
    assert (nowhere.returncode, nowhere.stdout) == (3, "")
    assert "there is no ledger under" in nowhere.stderr

    store = LocalStore(tmp_path / "out", sync="none")
    write_ledger(store, [entry(provider="openai", backend="openai-batch", model="gpt-4o-mini")])
    ended = lowtide(*command)
    assert ended.returncode == 4, ended.stderr
    assert "extra" in ended.stdout
    assert "written    nothing: no line is for a batch of this root" in ended.stdout
    assert "already" not in ended.stdout


def test_an_export_of_openais_ledger_leaves_that_ledger_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root", sync="none")
    write_ledger(store, [entry(provider="openai", backend="openai-batch", model="gpt-4o-mini", region="")])
    bill = tmp_path / "focus.csv"
    exported = lowtide("ledger", "export", "--root", str(tmp_path / "root"), "--focus", "1.2", "--out", str(bill))
    assert exported.returncode == 0, exported.stderr
    ended = lowtide("reconcile", "--root", str(tmp_path / "root"), "--bill", str(bill))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "missing" not in ended.stdout
    assert "compared   0 lines" in ended.stdout
