"""`cancel`: stop the last run over a window, or exactly one run of a job."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import click

from lowtide import engine, openruns
from lowtide.cli.progress import shown
from lowtide.cli.running import DONE, NOTHING_TO_DO, Command, last_run, prepare, say_if_kept, tell
from lowtide.connectors.stores import open_store
from lowtide.engine import Run
from lowtide.errors import ConfigError
from lowtide.events import CancelRequested
from lowtide.job import load_job
from lowtide.money import usd
from lowtide.rootwalk import folders
from lowtide.summary import summarize

_RUN_ID = re.compile(r"[0-9a-f]{16}")
_LONGEST_PAUSE = 5.0


def cancel(job: str, window: str) -> int:
    """Ask for the last run over a window to stop, and see it through."""
    current = last_run(job, window)
    if current.state.published_at:
        return _nothing(current)
    if not current.fit.differs:
        return _see_through(current, job, window)
    current.fit.check_places()
    while not engine.wind_down(current):
        time.sleep(_pause(current))
    ends_it = shlex.join(("lowtide", "cancel", job, "--run", current.plan.run_id))
    click.echo(
        f"its batches are stopped; put the job file back to collect what they have answered, or give it up: {ends_it}",
        err=True,
    )
    _tell(current, job, window)
    return DONE


def cancel_run(job: str, run_id: str) -> int:
    """Ask for exactly this run to stop, whatever the job file asks by now, and see it through to its end."""
    current = _named(job, run_id)
    window = current.plan.window
    if current.state.published_at or _is_over(current):
        return _nothing(current)
    if current.fit.differs:
        engine.end_run(current, poll=_pause(current))
        given_up = "; what its batches have answered is given up, since the job file asks something else now"
        return _say_ended(current, given_up if current.state.attempts else "")
    last = engine.find_run(current.context.work)
    if last is None or last.plan.run_id == run_id:
        return _see_through(current, job, window)
    current.fit.check_places()
    while not engine.wind_down(current):
        time.sleep(_pause(current))
    return _say_ended(current, "; what it has answered is kept for later runs")


def _named(job: str, run_id: str) -> Run:
    """The run of the job with this id, over whichever window it is. Raises ConfigError if there is none."""
    if not _RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"--run: found {run_id!r}; expected a run's id, 16 digits and letters a to f, as `lowtide status --all` "
            "shows it"
        )
    loaded = load_job(Path(job))
    store = open_store(loaded.output.root)
    for window in folders(store, f"runs/{loaded.name}/"):
        if store.info(f"runs/{loaded.name}/{window}/{run_id}/plan.json") is not None:
            found = engine.find_run(prepare(job, window, priced=False), run_id=run_id)
            if found is not None:
                return found
    raise ConfigError(f"job {loaded.name!r} has no run {run_id} under {store.uri}: is it a run of another job?")


def _is_over(current: Run) -> bool:
    """Whether the run was cancelled before, and nothing is left to do for it."""
    state, plan = current.state, current.plan
    if not state.cancelled or not (state.settled or not state.build_finished):
        return False
    return openruns.read_asked(current.context.store, plan.job, plan.window, plan.run_id) is None


def _nothing(current: Run) -> int:
    click.echo(f"run {current.plan.run_id} is finished: there is nothing to cancel", err=True)
    return NOTHING_TO_DO


def _see_through(current: Run, job: str, window: str) -> int:
    """Stop the last run of a window; what was answered is published."""
    current.fit.check_places()
    if not current.state.cancelled:
        current.context.journal.append(CancelRequested(at=current.context.clock()))
    with shown() as listen:
        engine.drive(current, listen, poll=_pause(current))
    _tell(current, job, window)
    say_if_kept(current)
    return DONE


def _say_ended(current: Run, more: str) -> int:
    """What became of a run that publishes nothing."""
    plan, cost = current.plan, summarize(current).cost_usd
    which = f"run {plan.run_id} of job {plan.job}, window {plan.window}"
    click.echo(f"{which}, is ended: it has cost {usd(cost)} USD{more}")
    return DONE


def _tell(current: Run, job: str, window: str) -> None:
    tell(current, summarize(current), Command.of(job, window, current.context.work), as_json=False)


def _pause(current: Run) -> float:
    return min(current.context.work.poll_seconds, _LONGEST_PAUSE)
