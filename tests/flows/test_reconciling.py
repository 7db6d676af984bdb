"""The monthly flow that holds the ledger against a bill, on a Prefect server of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from support import bills
from support.ledgers import entry, write_ledger

from lowtide.connectors.stores.local import LocalStore
from lowtide.errors import ConfigError
from lowtide.flows.reconciling import reconcile_root

SECONDS = 60.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two batches in its ledger, and the bill of last month's folder beside it, in two files."""
    entries = [entry(), entry(batch_id="arn:batch/2", token_type="output", quantity=500)]
    write_ledger(LocalStore(tmp_path / "root"), entries)
    return tmp_path / "root"


def write_bill(root: Path, extra: int = 0) -> str:
    """The address of a bill of these batches, in a folder for each month; `extra` tokens more than the ledger has."""
    month = (datetime.now(UTC).replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    folder = root.parent / "bills" / month
    folder.mkdir(parents=True)
    used = bills.used_of([entry(), entry(batch_id="arn:batch/2", token_type="output", quantity=500)])
    for number, line in enumerate(used):
        more = replace(line, quantity=line.quantity + extra)
        bills.write_cur(folder / f"part-{number}.parquet", bills.cur_rows([more]))
    return str(root.parent / "bills" / "{year}-{month}" / "*.parquet")


def drifts(root: Path) -> list[dict[str, object]]:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with get_client(sync_client=True) as client:
            asked = {"filter": {"event": {"name": ["lowtide.bill.drifted"]}}, "limit": 20}
            every = client.request("POST", "/events/filter", json=asked).json()["events"]
        if found := [event for event in every if event["payload"]["root"] == root.as_uri()]:
            return found
        time.sleep(0.5)
    return []


@pytest.mark.usefixtures("server")
def test_last_months_bill_is_written_into_the_ledger_once(root: Path) -> None:
    bill = write_bill(root)
    first = reconcile_root(str(root), bill)
    assert isinstance(first, dict)
    assert (first["files"], first["clean"], first["drift_tokens"]) == (2, True, 0)
    assert first["entries_written"] == 2
    again = reconcile_root(str(root), bill)
    assert isinstance(again, dict)
    assert (again["clean"], again["entries_written"]) == (True, 0)


@pytest.mark.usefixtures("server")
def test_a_bill_that_differs_is_told_of(root: Path) -> None:
    found = reconcile_root(str(root), write_bill(root, extra=7))
    assert isinstance(found, dict)
    assert (found["clean"], found["drift_tokens"]) == (False, 14)
    [event] = drifts(root)
    assert isinstance(event["payload"], dict)
    assert event["payload"]["drift_tokens"] == 14


@pytest.mark.usefixtures("server")
def test_a_bill_that_is_not_there_yet_fails_in_words(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"bill: .*is not there"):
        reconcile_root(str(root), str(root.parent / "none" / "{year}" / "*.csv"))
    with pytest.raises(ConfigError, match="bill: nothing is at"):
        reconcile_root(str(root), str(root.parent / "*.csv"))
