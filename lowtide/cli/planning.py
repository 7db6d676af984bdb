"""`plan` and `apply`: what a run would do and cost, and the run that does exactly that."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from lowtide import engine
from lowtide.cli import running
from lowtide.cli.progress import shown
from lowtide.engine import Progress
from lowtide.errors import StalePlan
from lowtide.inputs import Inputs
from lowtide.plainjson import plain_json
from lowtide.plan import RunPlan, Work
from lowtide.planning.planfile import PlanFile, Prints, check_place, make_again, prints_of, read_plan, write_plan
from lowtide.planning.staleness import changes_of_inputs, changes_of_work


def plan(job: str, window: str, *, out: str | None, quick: bool, use_cache: bool, refresh: bool, as_json: bool) -> int:
    """Show the plan; with `out`, write it down as well."""
    if out:
        check_place(Path(out))
    work = running.prepare(job, window, keyed=False, use_cache=use_cache, refresh=refresh)
    prints: list[Prints] = []

    def keep(inputs: Inputs) -> None:
        if out:
            prints.append(prints_of(inputs))

    with _counted(quiet=as_json) as listen:
        planned = engine.plan_run(work, exact=not quick, listen=listen, keep=keep)
    if out:
        write_plan(Path(out), planned, work, Path(job), prints[0])
    if as_json:
        click.echo(plain_json(planned).decode())
    else:
        from lowtide.cli import views

        options = ["--no-cache"] * (not use_cache) + ["--refresh"] * refresh
        go_on = running.Command.of(job, window, work)("run", *options)
        apply = shlex.join(["lowtide", "apply", out]) if out else ""
        views.show_plan(planned, [cap.label for cap in work.caps], _next(work, planned, go_on, apply))
    return running.DONE


def _next(work: Work, planned: RunPlan, run: str, apply: str) -> str:
    """What to type, and what that does."""
    known = engine.find_run(work, run_id=planned.run_id)
    if known is None:
        return apply or run
    given_up = {shard.given_up for shard in known.state.shards.values()}
    if engine.is_published(known) and "cancelled" in given_up:
        return f"{run} goes on with this run, which was cancelled"
    if engine.is_published(known) and "budget" in given_up:
        return f"{run} goes on with this run once there is room: the budget left requests unasked"
    if engine.is_published(known):
        return f"nothing: run {planned.run_id} has asked this already, and to run it again does nothing"
    return f"{run} goes on with this run, which was begun at {known.plan.backend}"


@contextmanager
def _counted(*, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Shows how many documents have been read."""
    with shown(quiet=quiet) as listen:
        yield lambda documents: listen(Progress("reading documents", documents, 0, 0, 0, 0, 0))


def apply(path: str, *, direct: bool, wait: bool, as_json: bool) -> int:
    """Begin the run that the plan describes, or go on with it, and say how it ended."""
    planned = read_plan(Path(path))
    command = running.Command(planned.job_file, planned.window)
    if direct:
        running.slim_arrow()
    work = running.prepare(planned.job_file, planned.window, writes=True, use_cache=planned.use_cache)
    work = replace(work, refresh=planned.plan.refresh > 0)
    again = make_again(planned, Path(path))
    _refuse(list(changes_of_work(planned, work)), planned, path, again)
    try:
        current = engine.apply_plan(
            work, planned.plan, lambda inputs: _refuse(list(changes_of_inputs(planned, inputs)), planned, path, again)
        )
    except StalePlan as error:
        if again in str(error) or "by another plan" in str(error):
            raise
        raise StalePlan(f"{error}; make a new plan with: {again}") from error
    return running.go(current, command, direct=direct, wait=wait, use_cache=planned.use_cache, as_json=as_json)


def _refuse(changes: list[str], planned: PlanFile, path: str, again: str) -> None:
    """Raise StalePlan that names all that has changed, if anything has."""
    if changes:
        told = "".join(f"\n  {change}" for change in changes)
        raise StalePlan(
            f"{path}: the plan of run {planned.plan.run_id} no longer holds:{told}\nmake a new plan with: {again}"
        )
