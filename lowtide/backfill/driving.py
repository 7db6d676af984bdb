"""One process that sees a backfill through: so many runs at a time, their passes interleaved.

A window that fails never stops the others. Whoever stops the process loses nothing: the runs are open, with their money
reserved, and the same command goes on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal

import msgspec

from lowtide import money
from lowtide.backfill import opening
from lowtide.backfill.allotments import Allotments
from lowtide.backfill.looking import Found
from lowtide.backfill.opening import Opened, open_window
from lowtide.backfill.planning import PlannedWindow, WorkOf
from lowtide.backfill.record import Backfill, WindowPlan
from lowtide.backfill.states import Stand, stand_of
from lowtide.engine import Progress, Run
from lowtide.engine.progress import Listener
from lowtide.engine.spending import highest_price
from lowtide.errors import LowtideError, Transient
from lowtide.ledger import spent
from lowtide.windows import Window

_LOG = logging.getLogger("lowtide.backfill")

MOST_TROUBLED_PASSES = 100
"""Passes in a row that bring a run nothing new and meet trouble, after which it is left alone."""

_PAUSES = (1.0, 5.0, 15.0)
"""Seconds between two tries to open a window, where what went wrong may pass."""

_HEARD_EVERY = 0.2
"""Seconds between two looks at everything while a run is at it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What has become of a window in this process. `stand` is "failed" with `why` if it could not go on."""

    window: str
    stand: Stand | str
    run_id: str = ""
    rows: int = 0
    usd: Decimal = Decimal(0)
    why: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the whole backfill stands: windows by what they do, answers of the runs that are open, and USD spent."""

    windows: int
    ended: int
    open: tuple[str, ...]
    records: int
    answered: int
    usd: Decimal
    step: str = ""


@dataclass(eq=False)
class _Active:
    """A run that is open in this process, and when its next pass is due."""

    window: str
    run: Run
    before: Decimal
    granted: Decimal
    due: float = 0.0
    troubled: int = 0
    entry: int = -1
    progress: Progress | None = None


Advance = Callable[[Run, Listener], Progress]
"""One pass of a run: done with, or only looked after where others do it."""


def _one_pass(run: Run, listen: Listener) -> Progress:
    return run.advance(listen)


class Drive:
    """Sees a backfill's windows through, at most `most` runs at a time.

    `ended` is told of each window as it ends, `listen` where everything stands. With no `approved_usd` in the record,
    runs that ask for approval wait for it. `sleep` is called with seconds of the `clock`. Once `leave` says so, what is
    open or waits stays as it is, and is not among what has ended: `left` says that.
    """

    def __init__(
        self,
        backfill: Backfill,
        work_of: WorkOf,
        allotments: Allotments,
        *,
        most: int = 3,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        listen: Callable[[Standing], None] = lambda standing: None,
        ended: Callable[[Ended], None] = lambda ended: None,
        advance: Advance = _one_pass,
        leave: Callable[[], bool] = lambda: False,
    ) -> None:
        self._backfill, self._work_of, self._allotments, self._most = backfill, work_of, allotments, most
        self._clock, self._sleep, self._listen, self._told = clock, sleep, listen, ended
        self._make_pass, self._leave = advance, leave
        self._queue: deque[PlannedWindow] = deque()
        self._planned: dict[str, PlannedWindow] = {}
        self._active: list[_Active] = []
        self._asking: list[_Active] = []
        self._least: dict[str, Decimal] = {}
        self._whole = 0
        self._settled = Decimal(0)
        self._heard = 0.0
        self.ended: dict[str, Ended] = {}
        self.left = False

    def run(self, planned: Sequence[PlannedWindow]) -> list[Ended]:
        """Run these windows, in their order; what has become of each.

        Those for which the cap has no room end "over budget", and those that nobody has approved "approval".
        """
        self._queue.extend(found for found in planned if found.need.word)
        self._planned = {found.window.name: found for found in self._queue}
        self._whole = len(self._queue)
        self._settled = self._allotments.spent
        self._go()
        if self.left:
            return list(self.ended.values())
        for waiting in self._asking:
            self._end(waiting.window, "approval", waiting.run, why=f"lowtide approve {waiting.run.plan.run_id}")
        left = self._allotments.left or Decimal(0)
        for undone in self._queue:
            needed = self._least.get(undone.window.name, undone.shown.least_usd)
            why = f"it needs {money.rough(needed)} USD set aside, and {money.rough(left)} of --max-usd are left"
            self._end(undone.window.name, "over budget", why=why)
        return list(self.ended.values())

    def cancel(self, windows: Sequence[Window]) -> list[Ended]:
        """Stop the runs of these windows that are open, and collect and publish what they have answered."""
        self._whole = len(windows)
        self._settled = self._allotments.spent
        for window, run, line in opening.stop_windows(windows, self._work_of, self._allotments, clock=self._clock):
            self._active.append(_Active(window.name, run, line.before, line.reserved))
        self._go()
        return list(self.ended.values())

    def _go(self) -> None:
        while True:
            if (self._active or self._queue) and self._leave():
                self.left = True
                return
            self._open_more()
            if not self._active:
                return
            now, open_before = self._clock(), len(self._active)
            for active in [active for active in self._active if active.due <= now]:
                self._pass(active)
            self._ask_again()
            self._listen(self._standing())
            if self._active and not (self._queue and len(self._active) < open_before):
                pause = min(active.due for active in self._active) - self._clock()
                if pause > 0:
                    self._sleep(pause)

    # ---- opening

    def _open_more(self) -> None:
        """Open runs while there is room for them; one that does not fit waits until others have ended.

        If nothing is open, whichever of them fits goes on.
        """
        tried = 0
        while self._queue and len(self._active) < self._most and tried < len(self._queue):
            planned = self._queue[tried]
            self._listen(self._standing(f"opening {planned.window.name}"))
            opened = self._open(planned)
            if opened is None:
                if self._active:
                    return
                tried += 1
                continue
            del self._queue[tried]
            if isinstance(opened, Opened):
                allotment = opened.allotment
                self._active.append(_Active(planned.window.name, opened.run, allotment.before, allotment.usd))
                tried = 0

    def _open(self, planned: PlannedWindow) -> Opened | str | None:
        """The run; a word if the window has ended with it, None if the cap has no room for it."""
        name = planned.window.name
        try:
            opened = self._try_to_open(planned)
            if opened is None or not opened.run.state.published_at or opened.run.chores:
                return opened
            # What is left did not fit into other caps either: it stays as it is.
            self._over(name, opened.run, opened.allotment.before)
        except LowtideError as error:
            self._end(name, "failed", why=str(error))
        except Exception as error:  # a fault of ours in one window is no reason to leave the others
            self._end(name, "failed", why=_unexpected(error))
        return "ended"

    def _try_to_open(self, planned: PlannedWindow) -> Opened | None:
        for pause in (*_PAUSES, None):
            try:
                return open_window(
                    self._shared(planned),
                    self._work_of(planned.window),
                    self._backfill,
                    self._allotments,
                    clock=self._clock,
                    least_usd=self._least.get(planned.window.name),
                )
            except Transient:
                if pause is None:
                    raise
                self._sleep(pause)
        return None

    def _shared(self, planned: PlannedWindow) -> PlannedWindow:
        """The window, with a fair part of what is left as the most that it may have: others are open meanwhile."""
        left = self._allotments.left
        if left is None:
            return planned
        slots = max(min(self._most - len(self._active), len(self._queue)), 1)
        least = self._least.get(planned.window.name, planned.shown.least_usd)
        fair = max(left / slots, least)
        return replace(planned, shown=_with_most(planned, min(planned.shown.worst_usd, fair)))

    # ---- passes

    def _pass(self, active: _Active) -> None:
        """One pass of a run, and what follows from it. Trouble that may pass is for the next one."""
        try:
            self._advance(active)
            return
        except Transient as error:
            active.troubled += 1
            active.due = self._clock() + active.run.context.work.poll_seconds
            why = str(error) if active.troubled > MOST_TROUBLED_PASSES else ""
        except LowtideError as error:
            why = str(error)
        except Exception as error:  # a fault of ours in one window is no reason to leave the others
            why = _unexpected(error)
        if why:
            self._active.remove(active)
            self._end(active.window, "failed", active.run, usd=_usd(active.run) - active.before, why=why)

    def _advance(self, active: _Active) -> None:
        run = active.run
        run.trouble = ""
        active.progress = self._make_pass(run, self._hear(active))
        active.troubled = active.troubled + 1 if run.trouble and run.state.entry == active.entry else 0
        active.entry = run.state.entry
        if active.troubled > MOST_TROUBLED_PASSES:
            raise Transient(run.trouble)
        if active.progress.done:
            self._finish(active)
            self._active.remove(active)
            return
        active.due = self._clock() + run.context.work.poll_seconds
        if run.awaits_approval and not self._approve(active):
            self._active.remove(active)
            self._asking.append(active)

    def _hear(self, active: _Active) -> Callable[[Progress], None]:
        def heard(progress: Progress) -> None:
            active.progress = progress
            if time.monotonic() - self._heard < _HEARD_EVERY:
                return
            self._heard = time.monotonic()
            self._listen(self._standing(f"{active.window}: {progress.step}"))

        return heard

    def _approve(self, active: _Active) -> bool:
        return opening.approve(active.run, self._backfill, self._allotments, at=self._clock())

    def _ask_again(self) -> None:
        """Go on with runs that somebody has approved meanwhile, or that what was shown covers by now."""
        for waiting in list(self._asking):
            with suppress(Transient):
                waiting.run.refresh()
                if self._approve(waiting):
                    self._asking.remove(waiting)
                    self._active.append(waiting)

    def _finish(self, active: _Active) -> None:
        """A run is done: settle it, and if its allotment was too small, put it back into the queue."""
        run = active.run
        opening.close_window(run, self._allotments)
        # And the run before it, if other documents have taken its place.
        opening.settle_ended(run.context.work, self._allotments)
        self._settled = self._allotments.spent
        planned = self._planned.get(active.window)
        wanted = [
            highest_price(shard, run.context) for shard in run.state.shards.values() if shard.given_up == "budget"
        ]
        gone = spent(run.state, run.context.work.price) > active.before
        if planned is None or not wanted or not self._was_bound(run) or not (gone or min(wanted) > active.granted):
            self._over(active.window, run, active.before)
            return
        self._least[active.window] = min(wanted)
        need = replace(planned.need, word="rest", retry=False)
        again = replace(planned, need=need, shown=_with_most(planned, money.total(wanted)), plan=run.plan)
        self._planned[active.window] = again
        self._queue.appendleft(again)

    def _was_bound(self, run: Run) -> bool:
        """Whether it was the backfill's own cap that the run has come up against."""
        work = run.context.work
        return self._backfill.max_usd is not None and work.run_usd == work.asked.max_usd

    def _over(self, window: str, run: Run, before: Decimal) -> None:
        opening.close_window(run, self._allotments)
        self._end(window, stand_of(Found(run.plan, run.state)), run, usd=_usd(run) - before)

    def _end(
        self, window: str, stand: Stand | str, run: Run | None = None, *, usd: Decimal = Decimal(0), why: str = ""
    ) -> None:
        rows = sum(run.state.published_counts.values()) if run is not None and run.state.published_at else 0
        ended = Ended(window, stand, "" if run is None else run.plan.run_id, rows, usd, why)
        self.ended[window] = ended
        self._told(ended)

    def _standing(self, step: str = "") -> Standing:
        progress = [active.progress for active in self._active if active.progress is not None]
        open_usd = money.total(max(_usd(active.run) - active.before, Decimal(0)) for active in self._active)
        return Standing(
            windows=self._whole,
            ended=len(self.ended),
            open=tuple(active.window for active in self._active),
            records=sum(found.records for found in progress),
            answered=sum(found.answered for found in progress),
            usd=money.total((self._settled, open_usd)),
            step=step or next((found.step for found in progress), ""),
        )


def _usd(run: Run) -> Decimal:
    return spent(run.state, run.context.work.price)


def _unexpected(error: Exception) -> str:
    """An error that is not one of ours, without its text: that may hold anything."""
    _LOG.warning("a window could not go on: %s", type(error).__name__, exc_info=_LOG.isEnabledFor(logging.DEBUG))
    return f"{type(error).__name__}, which should not happen; the same command tries again"


def _with_most(planned: PlannedWindow, most: Decimal) -> WindowPlan:
    """What was shown of the window, with so much as the most that it may have."""
    least = min(planned.shown.least_usd, most)
    return msgspec.structs.replace(planned.shown, worst_usd=most, least_usd=least)
