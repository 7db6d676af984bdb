"""`plan`, `run`, `status` and `cancel`."""

from __future__ import annotations

import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path

import click
import msgspec
import pyarrow as pa

from lowtide import engine
from lowtide.cli.progress import shown
from lowtide.connectors.assembly import assemble
from lowtide.engine import Run
from lowtide.errors import ConfigError, StalePlan
from lowtide.events import CancelRequested
from lowtide.job import load_job
from lowtide.plan import Work
from lowtide.summary import Summary, summarize
from lowtide.windows import parse_window

DONE, NOTHING_TO_DO, FAILED_ROWS, OVER_BUDGET = 0, 3, 4, 5


def prepare(job: str, window: str, *, writes: bool = False) -> Work:
    """The job's work over the window, ready to be planned; with `writes`, the root is tried out first."""
    return assemble(load_job(Path(job)), parse_window(window), try_root=writes)


def plan(job: str, window: str, *, as_json: bool) -> int:
    """Show the plan."""
    planned = engine.plan_run(prepare(job, window))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(planned)).decode())
    else:
        from lowtide.cli import views

        views.show_plan(planned)
    return DONE


def run(job: str, window: str, *, direct: bool, wait: bool, retry: bool, as_json: bool) -> int:
    """Run, or go on, and say how it ended."""
    if direct:
        slim_arrow()
    work = prepare(job, window, writes=True)
    current = engine.open_run(work, retry=retry)
    if engine.is_published(current) and not current.chores:
        return _nothing_to_do(current, as_json=as_json)
    with shown(quiet=as_json) as listen:
        if direct:
            engine.drive(current, listen, poll=work.poll_seconds, until=None if wait else 0.0)
        else:
            from lowtide.flows.command import run_through_prefect

            run_through_prefect(job, window, wait=wait, listen=listen, fallback=current)
    current.refresh()
    summary = summarize(current)
    _tell(summary, as_json=as_json)
    return exit_code(current, summary)


class _NoPandas(MetaPathFinder):
    """Finds that there is no pandas, and leaves all else to others."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("not needed here", name=name)


def slim_arrow() -> None:
    """Let pyarrow return memory at once, use one core, and find no pandas.

    A shard's join is too short to share out, and threads keep memory of their own. pandas would be imported for the
    first list that pyarrow is given, to see if it is a frame: an eighth of a second and 30 MB for nothing, since the
    engine knows no data frames. Whoever imports pandas himself still can.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    if "pandas" in sys.modules:
        return
    hidden = _NoPandas()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([""])
    finally:
        sys.meta_path.remove(hidden)


def status(job: str, window: str, *, as_json: bool) -> int:
    """Show where the window's last run stands."""
    summary = summarize(_last_run(job, window))
    _tell(summary, as_json=as_json)
    return DONE


def cancel(job: str, window: str) -> int:
    """Ask for the run to stop, and see it through."""
    current = _last_run(job, window)
    if current.state.published_at:
        click.echo(f"run {current.plan.run_id} is finished: there is nothing to cancel", err=True)
        return NOTHING_TO_DO
    pause = min(current.context.work.poll_seconds, 5.0)
    if current.differs():
        while not engine.wind_down(current):
            time.sleep(pause)
        click.echo("its batches are stopped; put the job file back to collect what they have answered", err=True)
    else:
        if not current.state.cancelled:
            current.context.journal.append(CancelRequested(at=current.context.clock()))
        with shown() as listen:
            engine.drive(current, listen, poll=pause)
    _tell(summarize(current), as_json=False)
    _say_if_kept(current)
    return DONE


def _say_if_kept(current: Run) -> None:
    if current.state.published_at and current.state.kept:
        click.echo("the window's results are still those of an earlier run, since this one is not complete", err=True)


def _last_run(job: str, window: str) -> Run:
    work = prepare(job, window)
    found = engine.find_run(work)
    if found is None:
        raise ConfigError(
            f"job {work.job!r} has no run over window {work.window.name!r} under {work.root.uri}; "
            f"start one with: lowtide run {job} --window {window}"
        )
    return found


def _nothing_to_do(current: Run, *, as_json: bool) -> int:
    summary = summarize(current)
    _tell(summary, as_json=as_json)
    if not as_json:
        click.echo("Nothing new, nothing bought: these documents were asked these questions before.", err=True)
    return OVER_BUDGET if summary.over_budget else NOTHING_TO_DO


def _tell(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(summary)).decode())
    else:
        # Its look costs a tenth of what a whole small run does; who wants JSON is spared it.
        from lowtide.cli import views

        views.show_summary(summary)


def exit_code(current: Run, summary: Summary) -> int:
    """What a command that has driven the run ends with."""
    _say_if_kept(current)
    if not current.state.published_at or (not current.state.kept and not engine.is_published(current)):
        if current.state.settled:
            raise StalePlan(f"run {summary.run_id} is settled and was not published: a later run of this window was")
        print("not finished: the same command goes on, and `lowtide status` says where it stands", file=sys.stderr)
        return DONE
    if summary.over_budget:
        return OVER_BUDGET
    return FAILED_ROWS if summary.failed else DONE
