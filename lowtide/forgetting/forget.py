"""Forget documents: take them out of everything that a root holds, and note that it was done.

One pass goes through all runs, then through the results of all windows. Passes are made until one finds nothing, so
that what others have written meanwhile is found as well. Everything is one replacement or deletion of one file, and the
same again finishes what a killed process has left.

Nobody may be at a run while it is changed. An open run that holds one of the documents is refused; one that is asked
for while it is being changed shows that in its journal, and then it is to be forgotten once more. Who publishes a run
reads its rows behind the entry by which it was asked for. So rows that were read before are never published behind the
results that were cleaned: those are replaced only if their etag is still the one that was seen.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lowtide import openruns
from lowtide.errors import CorruptJournal, LowtideError
from lowtide.forgetting import record, runs
from lowtide.forgetting.published import address_in_results, forget_in_results
from lowtide.forgetting.rewriting import Rewriter
from lowtide.forgetting.standing import Opened, Standing, look_at
from lowtide.forgetting.target import Target
from lowtide.forgetting.touched import Touched
from lowtide.inputs import spool
from lowtide.journal import Superseded
from lowtide.ownership import this_owner
from lowtide.protocols import Store
from lowtide.rootwalk import run_places

_PASSES = 10


class NotForgotten(LowtideError):
    """A run that holds the document is not finished, or somebody else is forgetting something here.

    The message says what was removed before that.
    """

    exit_code = 3


class _InUse(Exception):
    """Somebody is at a run that holds the document. Says which run it is, and what to do."""


@dataclass(frozen=True)
class Forgetting:
    """Documents to be forgotten in a root. `by` is who wants it; `clock` gives seconds since the epoch."""

    store: Store
    target: Target
    by: str = ""
    clock: Callable[[], float] = time.time

    def survey(self) -> Touched:
        """What there is to remove. Changes nothing. Raises NotForgotten if an open run holds one of the documents."""
        with _rewriter(self.store, dry=True) as rewriter:
            try:
                self._pass(rewriter)
            except _InUse as why:
                raise NotForgotten(f"{why}; nothing was removed") from None
            return rewriter.touched

    def perform(self) -> Touched:
        """Remove all of it; returns what was removed, nothing if there was nothing. Raises NotForgotten.

        A call that died before it was done is finished, and its record with it, also where nothing is left to remove.
        """
        before = self._begun_before()
        if not before and not self.survey():
            return Touched()
        mark = record.mark_of(self.store, self.target)
        begun = record.Begun(mark, self._now(), self.by, this_owner())
        name = record.begin(self.store, begun)
        touched = Touched()
        try:
            # Once more: the survey has taken its time.
            self._begun_before()
        except NotForgotten:
            record.finish(self.store, name, record.Done(mark, self._now(), self.by, {}))
            raise
        for _ in range(_PASSES):
            with _rewriter(self.store) as rewriter:
                try:
                    self._pass(rewriter)
                except _InUse as why:
                    touched.update(rewriter.touched)
                    raise NotForgotten(f"{why}; {_removed(touched)}") from None
            if not rewriter.touched:
                break
            touched.update(rewriter.touched)
        else:
            raise NotForgotten(
                f"others write this document into the root all the time: stop them, then run this again; "
                f"{_removed(touched)}"
            )
        done = record.Done(mark, self._now(), self.by, touched.counts())
        for one in [*before, name]:
            record.finish(self.store, one, done)
        return touched

    def was_begun(self) -> bool:
        """Whether a call before this one has died before it was done. Raises NotForgotten if another is at work."""
        return bool(self._begun_before())

    def _begun_before(self) -> list[str]:
        """The records of calls that have died. Two calls at once could hand answers to each other's documents."""
        found = list(record.unfinished(self.store))
        mark = record.mark_of(self.store, self.target) if found else ""
        for one in found:
            if one.begun.mark != mark and record.is_at_work(one.begun, self._now()):
                raise NotForgotten(
                    f"somebody is forgetting another document here since {one.begun.at:%Y-%m-%d %H:%M} UTC: run this "
                    "again when that is done; nothing was removed"
                )
        return [one.name for one in found if one.begun.mark == mark]

    def located(self) -> Target:
        """The target with its address, where only an id was given and any table knows it."""
        if self.target.uri:
            return self.target
        return replace(self.target, uri=self._address())

    def _address(self) -> str:
        name = self.target.document_id
        if uri := address_in_results(self.store, name):
            return uri
        for place in run_places(self.store):
            run = look_at(self.store, place, self.clock)
            if uri := runs.address_in_shards(self.store, run, name):
                return uri
        return ""

    def _pass(self, rewriter: Rewriter) -> None:
        target = self.located()
        for place in run_places(self.store):
            if runs.lists(self.store, place, target):
                self._forget_in_run(rewriter, look_at(self.store, place, self.clock), target)
        forget_in_results(rewriter, target)

    def _forget_in_run(self, rewriter: Rewriter, run: Opened, target: Target) -> None:
        entry = run.state.entry
        match run.standing:
            case Standing.UNBUILT:
                try:
                    runs.forget_in_unbuilt(rewriter, run, target, self.clock)
                except Superseded:
                    raise self._in_use(run) from None
                return
            case Standing.OPEN:
                if not run.state.build_finished or runs.holds_in_shards(rewriter, run, target):
                    raise self._in_use(run)
                return
            case Standing.DROPPED:
                runs.reset(rewriter, run)
                runs.forget_in_inputs(rewriter, run, target)
                return
        if run.plan is not None:
            runs.forget_in_closed(rewriter, run, run.plan, target)
        if run.journal.refresh().entry != entry:
            raise self._in_use(run)

    def _in_use(self, run: Opened) -> _InUse:
        place = run.place
        ends_it = shlex.join(("lowtide", "cancel", self._job_file(run) or "JOB", "--run", place.run_id))
        if run.is_unread:
            how = f"was stopped, and nobody has read what it was answered: end it with `{ends_it}`"
        else:
            how = f"is not finished: let it finish, or end it with `{ends_it}`"
        return _InUse(
            f"run {place.run_id} of job {place.job}, window {place.window}, holds this document and {how}, then run "
            "this again"
        )

    def _job_file(self, run: Opened) -> str:
        """Which job file the run was asked for with, as far as that is noted."""
        place = run.place
        try:
            asked = openruns.read_asked(self.store, place.job, place.window, place.run_id)
        except CorruptJournal:
            return ""
        return asked.job_file if asked is not None else ""

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


def _removed(touched: Touched) -> str:
    """What a call has done that cannot go on."""
    if not touched:
        return "nothing was removed"
    counts = touched.counts().items()
    removed = ", ".join(f"{kind} {counted['entries']:,} in {_files(counted['files'])}" for kind, counted in counts)
    return f"removed so far, and not to be brought back: {removed}; what is left goes when this is run again"


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


@contextmanager
def _rewriter(store: Store, *, dry: bool = False) -> Iterator[Rewriter]:
    with spool() as folder:
        yield Rewriter(store, Path(folder), dry)
