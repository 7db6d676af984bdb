"""kill -9 at every point between intent, reservation, create call, collection and settlement, with real processes.

Then the same command again: what is reserved plus spent never passes the cap, and nothing stays reserved.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from support.driver import Command, Drivers, FileProvider
from support.standins import PRICE

from lowtide.budget.account import Account, AccountState
from lowtide.budget.caps import Cap
from lowtide.connectors.stores.local import LocalStore
from lowtide.journal import Journal

pytestmark = pytest.mark.slow


def has_account(root: Path) -> bool:
    """A folder is made before the month's own, and that before its first entry."""
    return any((root / "budget").glob("*/*"))


def account(root: Path) -> AccountState:
    [month] = [path.name for path in (root / "budget").iterdir()]
    return Account(LocalStore(root), month, "auditor").refresh()


def check(root: Path, provider: FileProvider) -> None:
    """Nothing is reserved, and what is spent is the bill."""
    assert not provider.faults
    state = account(root)
    assert not state.open
    assert sum((line.spent for line in state.lines.values()), Decimal(0)) == PRICE.amount(provider.bill())


def commands_under(usd: Decimal, root: Path, provider: FileProvider) -> list[Command]:
    """Two jobs that share a cap."""
    return [Command(str(root), str(provider.folder), job=job, month_usd=str(usd)) for job in ("first", "second")]


def writes_of_a_run(folder: Path, drivers: Drivers) -> int:
    with FileProvider(folder / "provider").at_work() as provider:
        assert drivers.run(Command(str(folder / "root"), str(provider.folder))) == 0
        check(folder / "root", provider)
        return int((provider.folder / "points").read_text())


def test_a_run_killed_at_any_point_leaves_no_reservation(drivers: Drivers, tmp_path: Path) -> None:
    points, killed = writes_of_a_run(tmp_path / "whole", drivers), 0
    assert points > 80
    for point in range(1, points + 1):
        folder = tmp_path / str(point)
        with FileProvider(folder / "provider").at_work() as provider:
            killed += drivers.run(Command(str(folder / "root"), str(provider.folder), point)) == -signal.SIGKILL
            assert drivers.run(Command(str(folder / "root"), str(provider.folder))) == 0
            check(folder / "root", provider)
    assert killed > points // 2


@pytest.mark.parametrize("seed", range(6))
def test_two_runs_under_one_cap_that_are_killed_at_any_time_never_pass_it(
    seed: int, drivers: Drivers, rivals: Drivers, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    root, usd = tmp_path / "root", Decimal(chance.choice(["0.018", "0.027", "0.05"]))
    cap = Cap("everything", usd, "the test")
    watched = 0
    with FileProvider(tmp_path / "provider").at_work() as provider:
        pairs = list(zip((drivers, rivals), commands_under(usd, root, provider), strict=True))
        for _ in range(6):
            running = [(starter, starter.start(command)) for starter, command in pairs]
            for starter, pid in running:
                # On a busy machine it takes its time until there is something to watch.
                latest = time.monotonic() + 30
                while not has_account(root) and time.monotonic() < latest:
                    time.sleep(0.005)
                until = time.monotonic() + chance.uniform(0.002, 0.15)
                while time.monotonic() < until:
                    if has_account(root):
                        assert account(root).room(cap).left >= 0
                        watched += 1
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                assert starter.wait() in (0, -signal.SIGKILL)
        # Of two that give up for what the other holds, the one that is asked again later finds room.
        for starter, command in [*pairs, *pairs]:
            assert starter.run(command) == 0
        assert watched
        assert account(root).room(cap).left >= 0
        assert PRICE.amount(provider.bill()) <= usd
        check(root, provider)
    for plan in root.glob("runs/*/all/*/plan.json"):
        state = Journal(LocalStore(root), str(plan.parent.relative_to(root)), "auditor").refresh()
        assert state.published_at


def test_two_runs_at_the_same_time_never_pass_a_cap_together(drivers: Drivers, rivals: Drivers, tmp_path: Path) -> None:
    """Undisturbed: each takes what room there is, and gives up the rest."""
    root, usd = tmp_path / "root", Decimal("0.02")
    with FileProvider(tmp_path / "provider").at_work() as provider:
        for starter, command in zip((drivers, rivals), commands_under(usd, root, provider), strict=True):
            starter.start(command)
        assert [drivers.wait(), rivals.wait()] == [0, 0]
        assert 0 < PRICE.amount(provider.bill()) <= usd
        check(root, provider)
