"""The record of a backfill: what was asked, what was shown before anything was bought, and who approved it.

    backfills/<job>/<id>.json          the record
    budget/backfill-<id>/              what its runs were allotted, and what they have spent

The id is a hash of what was asked, so that the same command finds its record again. What has become of a window stands
in the journal of its run, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from lowtide import money
from lowtide.backfill.asking import Wanted
from lowtide.budget.approval import covered_usd
from lowtide.errors import CorruptJournal, NotFound
from lowtide.protocols import Store

FOLDER = "backfills/"


class WindowPlan(msgspec.Struct, frozen=True):
    """What a backfill does about one window, as it was shown. Money in USD.

    `needs` is why the window is run, in a word; "" if it is passed over, and then `why` says why. `begun` says that a
    run is under way, of which `cost_usd` and its bounds are what is left. `worst_usd` is what the engine may have to
    reserve, `least_usd` what is enough to be done as expected. `replaces_rows` are those of the published results.
    """

    window: str
    start: datetime
    end: datetime
    needs: str = ""
    why: str = ""
    run_id: str = ""
    documents: int = 0
    requests: int = 0
    cached: int = 0
    twins: int = 0
    cost_low_usd: Decimal = Decimal(0)
    cost_usd: Decimal = Decimal(0)
    cost_high_usd: Decimal = Decimal(0)
    worst_usd: Decimal = Decimal(0)
    least_usd: Decimal = Decimal(0)
    backend: str = ""
    model: str = ""
    replaces_rows: int = 0
    begun: bool = False
    exact: bool = True
    late: bool = False


class Backfill(msgspec.Struct, frozen=True):
    """A backfill. Times in seconds since the epoch, 0 for not yet; money in USD.

    `number` counts the times that the same was asked before, and was finished. `approved_usd` is what was shown, and
    may be spent with all of it; `max_usd` what may not be passed whatever it takes.
    """

    id: str
    wanted: Wanted
    job_file: str
    number: int = 0
    asked_at: float = 0.0
    windows: tuple[WindowPlan, ...] = ()
    max_usd: Decimal | None = None
    approve_above_usd: Decimal | None = None
    approved_usd: Decimal | None = None
    approved_by: str = ""
    finished_at: float = 0.0
    cancelled_at: float = 0.0

    @property
    def to_do(self) -> tuple[WindowPlan, ...]:
        """The windows that are run, oldest first."""
        return tuple(window for window in self.windows if window.needs)

    @property
    def cost_usd(self) -> Decimal:
        """What is left to be spent, as expected."""
        return money.total(window.cost_usd for window in self.to_do)

    @property
    def cost_low_usd(self) -> Decimal:
        """The least that is left to be spent, with 90 %."""
        return money.total(window.cost_low_usd for window in self.to_do)

    @property
    def cost_high_usd(self) -> Decimal:
        """The most that is left to be spent, with 90 %."""
        return money.total(window.cost_high_usd for window in self.to_do)

    def window(self, name: str) -> WindowPlan | None:
        """The window of that name."""
        return next((found for found in self.windows if found.window == name), None)

    def covers(self, usd: Decimal) -> bool:
        """Whether so much in all is within what was shown and approved."""
        return self.approved_usd is not None and usd <= covered_usd(self.approved_usd)


def path_of(job: str, backfill_id: str) -> str:
    """Where the record lies in the root."""
    return f"{FOLDER}{job}/{backfill_id}.json"


def read_backfill(store: Store, job: str, backfill_id: str) -> Backfill | None:
    """The record; None if there is none. Raises CorruptJournal for what cannot be read."""
    path = path_of(job, backfill_id)
    try:
        return msgspec.json.decode(store.read(path), type=Backfill)
    except NotFound:
        return None
    except msgspec.DecodeError as error:
        raise CorruptJournal(f"{store.uri_of(path)}: no backfill that this version knows: {error}") from error


def write_backfill(store: Store, backfill: Backfill) -> None:
    """Keep the record, in one step."""
    store.write(path_of(backfill.wanted.job, backfill.id), msgspec.json.encode(backfill))


def last_asked(store: Store, wanted: Wanted) -> Backfill | None:
    """The last backfill that was asked for with just this; None if there was none."""
    found: Backfill | None = None
    number = 0
    while (there := read_backfill(store, wanted.job, wanted.id(number))) is not None:
        found, number = there, number + 1
    return found


def going_on(store: Store, wanted: Wanted, *, job_file: str, again: bool = False) -> Backfill | None:
    """The backfill that a command means: the one that is under way, or else a new one; None if there is nothing to do.

    Where all or what failed is asked anew, one that is finished is done with unless `again` says so: to ask it once
    more is to pay once more. Else the next one looks at what has come since. Writes nothing.
    """
    last = last_asked(store, wanted)
    if last is None:
        return Backfill(wanted.id(0), wanted, job_file)
    if not last.finished_at:
        return msgspec.structs.replace(last, job_file=job_file)
    if wanted.reprocess in ("all", "failed") and not again:
        return None
    return Backfill(wanted.id(last.number + 1), wanted, job_file, last.number + 1)


def conclude(store: Store, backfill: Backfill, stands: Iterable[str], *, at: float) -> Backfill:
    """Keep whether the backfill is finished: it is once each of its windows is published, answered or not."""
    if all(stand in ("done", "incomplete") for stand in stands):
        backfill = msgspec.structs.replace(backfill, finished_at=at)
        write_backfill(store, backfill)
    return backfill
