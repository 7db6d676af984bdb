"""What each run of a backfill may spend, so that all of them together never pass its cap.

Before a run begins, money is reserved for it in an account of the backfill's own; the run keeps to that, whoever
advances it. When it has ended, what it was allotted gives way to what it has spent. So what is spent plus allotted
never passes the cap, whoever dies in between.

A line of the account is named `<path of the run>@<USD>`: what the run had spent when it was made. A run that is opened
again gets another line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from lowtide import money
from lowtide.budget.account import Account, AccountState, Payer, Release, Settle
from lowtide.budget.caps import Cap
from lowtide.protocols import Store


@dataclass(frozen=True, slots=True)
class Allotment:
    """Money for a run: it may spend `usd` beyond the `before` that it had spent already."""

    run: str
    usd: Decimal
    before: Decimal

    @property
    def run_usd(self) -> Decimal:
        """What the run may have cost in all."""
        return money.total((self.before, self.usd))


@dataclass(frozen=True, slots=True)
class Line:
    """An allotment as it stands in the account: what is reserved, or once it is settled what was spent."""

    name: str
    run: str
    before: Decimal
    reserved: Decimal
    spent: Decimal
    settled: bool

    @property
    def window(self) -> str:
        """The window of the run."""
        return self.run.split("/")[2]


def lines_of(state: AccountState) -> list[Line]:
    """All allotments of an account."""
    return [
        Line(name, line.run, Decimal(name.rpartition("@")[2]), line.reserved, line.spent, line.settled)
        for name, line in state.lines.items()
    ]


class Allotments:
    """One process's view of what a backfill's runs are allotted. `cap` is None where nothing bounds them."""

    def __init__(
        self,
        store: Store,
        backfill_id: str,
        job: str,
        tags: Mapping[str, str],
        owner: str,
        *,
        cap: Decimal | None,
        clock: Callable[[], float],
    ) -> None:
        self._account = Account(store, f"backfill-{backfill_id}", owner)
        self._job, self._tags, self._clock = job, dict(tags), clock
        self._cap = None if cap is None else Cap("max_usd", cap, f"--max-usd of backfill {backfill_id}", job)

    def lines(self) -> list[Line]:
        """All allotments that were ever made, as they stand now."""
        return lines_of(self._account.refresh())

    @property
    def spent(self) -> Decimal:
        """What runs that have ended have spent."""
        return money.total(line.spent for line in self.lines())

    @property
    def left(self) -> Decimal | None:
        """What may still be allotted; None where nothing bounds it."""
        return None if self._cap is None else self._account.refresh().room(self._cap).left

    def line_of(self, run: str) -> Line | None:
        """The open allotment of a run."""
        return next((line for line in self.lines() if line.run == run and not line.settled), None)

    def allot(self, run: str, *, most: Decimal, least: Decimal, spent: Decimal) -> Allotment | None:
        """Reserve up to `most` for the run, which has `spent` so much so far; None if less than `least` is left.

        A run that has money allotted keeps it, and may be given more. Holds for all processes of the backfill.
        """
        while True:
            open_line = self.line_of(run)
            before = spent if open_line is None else open_line.before
            name = f"{run}@{money.exact(before).replace(',', '')}"
            kept = Decimal(0) if open_line is None else open_line.reserved
            usd = max(most, kept)
            if self._cap is not None:
                usd = min(usd, self._account.state.room(self._cap, without=name).left)
                if usd < max(least, kept):
                    return None if open_line is None else Allotment(run, kept, before)
            if not self._account.reserve(self._payer(run), name, usd, self._caps, at=self._clock()):
                return Allotment(run, usd, before)
            if name in self._account.state.lines and self._account.state.lines[name].settled:
                # It has spent nothing since, and what was settled once stays so.
                return None

    def settle(self, run: str, spent: Decimal) -> None:
        """The run has ended, and has spent so much in all. What it was allotted and has not spent is free again."""
        changes: list[Settle | Release] = []
        for line in self.lines():
            if line.run == run and not line.settled:
                used = max(spent - line.before, Decimal(0))
                changes.append(Settle(line.name, used))
        self._account.close(self._payer(run), changes, at=self._clock())

    def release(self, run: str) -> None:
        """The run has not begun, or has spent nothing of it: its money is free again, and it may be allotted anew."""
        seen = self._account.refresh()
        changes = [Release(line.name) for line in lines_of(seen) if line.run == run and not line.settled]
        self._account.close(self._payer(run), changes, at=self._clock(), seen=seen)

    @property
    def _caps(self) -> tuple[Cap, ...]:
        return () if self._cap is None else (self._cap,)

    def _payer(self, run: str) -> Payer:
        return Payer(run, self._job, self._tags)
