"""`run` and `status`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import NamedTuple

import click
import pyarrow as pa

from lowtide import engine
from lowtide.billing.reading import is_priced
from lowtide.calendars import is_last
from lowtide.cli.progress import shown
from lowtide.connectors.assembly import assemble
from lowtide.engine import Run
from lowtide.errors import ConfigError, StalePlan
from lowtide.job import load_job
from lowtide.money import rough
from lowtide.plainjson import plain_json
from lowtide.plan import RunPlan, Work
from lowtide.planning.making import LATE
from lowtide.summary import FAILED, Summary, summarize

DONE, NOTHING_TO_DO, FAILED_ROWS, OVER_BUDGET = 0, 3, 4, 5


def prepare(
    job: str,
    window: str,
    *,
    writes: bool = False,
    priced: bool = True,
    keyed: bool = True,
    use_cache: bool = True,
    refresh: bool = False,
) -> Work:
    """The job's work over the window, ready to be planned; with `writes`, the root is tried out first.

    The window is read in the job's time zone; `last` is the last one of its calendar that has ended by now.
    Without `priced`, no prices are looked up, as is enough for a run that was planned before; without `keyed`, no
    provider is to be called, and keys may be missing.
    """
    loaded = load_job(Path(job))
    named = loaded.calendar.named(window, datetime.now(UTC))
    work = assemble(loaded, named, try_root=writes, priced=priced, keyed=keyed)
    return replace(work, use_cache=use_cache, refresh=refresh)


def run(
    job: str, window: str, *, direct: bool, wait: bool, retry: bool, use_cache: bool, refresh: bool, as_json: bool
) -> int:
    """Run, or go on, and say how it ended."""
    if direct:
        slim_arrow()
    work = prepare(job, window, writes=True, use_cache=use_cache, refresh=refresh)
    current = engine.open_run(work, retry=retry)
    return go(current, Command.of(job, window, work), direct=direct, wait=wait, use_cache=use_cache, as_json=as_json)


def go(current: Run, command: Command, *, direct: bool, wait: bool, use_cache: bool, as_json: bool) -> int:
    """See a run through that was opened, and say how it ended."""
    if engine.is_published(current) and not current.chores:
        return _nothing_to_do(current, command, as_json=as_json)
    if not as_json and not current.state.shards:
        # What it may cost is said before anything is sent.
        click.echo("\n".join(in_short(current.plan)), err=True)
    with shown(quiet=as_json) as listen:
        if direct:
            engine.drive(current, listen, poll=current.context.work.poll_seconds, until=None if wait else 0.0)
        else:
            from lowtide.flows.command import run_through_prefect

            run_through_prefect(
                command.job, command.window, wait=wait, use_cache=use_cache, listen=listen, fallback=current
            )
    current.refresh()
    summary = summarize(current)
    tell(current, summary, command, as_json=as_json)
    return exit_code(current, summary)


def in_short(plan: RunPlan) -> list[str]:
    """The plan in a line or two: what is asked where, what it costs, and when it is done."""
    chosen = next((option for option in plan.options if option.chosen), None)
    where = f"{plan.backend}, model {plan.model}"
    if chosen is None:
        return [f"plan: {where}, about {rough(plan.cost_usd)} USD"]
    cost = f"about {rough(chosen.cost_usd)} USD"
    if not is_priced(chosen.price_id, chosen.cost_usd):
        cost = "costs are not known"
    elif chosen.cost_high_usd > chosen.cost_low_usd:
        cost += f" ({rough(chosen.cost_low_usd)} to {rough(chosen.cost_high_usd)})"
    asked = f"{chosen.requests:,} request{'' if chosen.requests == 1 else 's'}"
    if chosen.cached:
        asked += f" ({chosen.cached:,} more are answered by earlier runs)"
    done = datetime.fromtimestamp(chosen.finish, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"plan: {asked} at {where}", f"plan: {cost}, done by {done}"]
    return [*lines, *(f"plan: {note}" for note in plan.notes if note.startswith(LATE))]


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
    current = last_run(job, window, keyed=False)
    tell(current, summarize(current), Command.of(job, window, current.context.work), as_json=as_json)
    return DONE


def say_if_kept(current: Run) -> None:
    """Say so where the run is not complete, and did not take the place of one that is."""
    if current.state.published_at and current.state.kept:
        click.echo("the window's results are still those of an earlier run, since this one is not complete", err=True)


def last_run(job: str, window: str, *, keyed: bool = True) -> Run:
    """The window's last run. Raises ConfigError if there is none."""
    work = prepare(job, window, priced=False, keyed=keyed)
    found = engine.find_run(work)
    if found is None:
        raise never_ran(work, job, window)
    return found


def never_ran(work: Work, job: str, window: str) -> ConfigError:
    """What is wrong where there is no run yet, and how to start one."""
    return ConfigError(
        f"job {work.job!r} has no run over window {work.window.name!r} under {work.root.uri}; "
        f"start one with: {Command.of(job, window, work)('run')}"
    )


class Command(NamedTuple):
    """The job and window that the user gave, for commands that he may type next."""

    job: str
    window: str

    @classmethod
    def of(cls, job: str, window: str, work: Work) -> Command:
        """The window as it was given; but `last` by its name, since another one may be the last in a minute."""
        return cls(job, work.window.name if is_last(window) else window)

    def __call__(self, name: str, *options: str) -> str:
        window = () if self.window == "all" else ("--window", self.window)
        return shlex.join(("lowtide", name, self.job, *window, *options))


def _nothing_to_do(current: Run, command: Command, *, as_json: bool) -> int:
    summary = summarize(current)
    tell(current, summary, command, as_json=as_json)
    if summary.over_budget:
        why = "the budget does not allow what is left to be asked"
    elif summary.unasked:
        why = "none of these documents can be asked"
    else:
        why = "these documents were asked these questions before"
    if not as_json:
        click.echo(f"Nothing new, nothing bought: {why}.", err=True)
    return _code(summary) or NOTHING_TO_DO


def tell(current: Run, summary: Summary, command: Command, *, as_json: bool) -> None:
    """Show where the run stands, and what may be done about rows without an answer."""
    if as_json:
        click.echo(plain_json(summary).decode())
    else:
        # Its look costs a tenth of what a whole small run does; who wants JSON is spared it.
        from lowtide.cli import views

        views.show_summary(summary)
        if current.state.published_at and _code(summary) in (FAILED_ROWS, OVER_BUDGET):
            from lowtide.cli.reasons import reasons_of

            views.show_reasons(reasons_of(current, summary), _advice(current, summary, command))


def _advice(current: Run, summary: Summary, command: Command) -> list[str]:
    """Commands for a run that has rows without an answer."""
    advice: list[str] = []
    if summary.failed:
        most = max(FAILED, key=lambda status: summary.counts.get(status, 0))
        advice.append(command("show", "--status", most))
    elif summary.unasked:
        advice.append(command("show", "--status", "skipped"))
    if summary.cut_short:
        advice.append(f"{command('run')} asks what is left")
    elif summary.over_budget:
        advice.append(f"{command('run')} asks what is left, once there is room")
    elif any(shard.remaining for shard in current.state.shards.values() if shard.rows):
        advice.append(f"{command('run', '--retry')} asks again")
    return advice


def exit_code(current: Run, summary: Summary) -> int:
    """What a command that has driven the run ends with."""
    say_if_kept(current)
    if not current.state.published_at or (not current.state.kept and not engine.is_published(current)):
        if current.state.settled:
            raise StalePlan(f"run {summary.run_id} is settled and was not published: a later run of this window was")
        if current.awaits_approval:
            address = f"{current.context.store.uri}/{current.plan.prefix}"
            click.echo(f"nothing is submitted before it is approved: lowtide approve {address}", err=True)
        print("not finished: the same command goes on, and `lowtide status` says where it stands", file=sys.stderr)
        return DONE
    if summary.unasked:
        click.echo(f"warning: nothing was asked: all {summary.rows:,} rows were skipped", err=True)
    return _code(summary)


def _code(summary: Summary) -> int:
    """What the rows of a run that is over amount to."""
    if summary.over_budget:
        return OVER_BUDGET
    return FAILED_ROWS if summary.failed or summary.cut_short or summary.unasked else DONE
