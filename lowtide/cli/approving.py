"""`approve`: let a run spend what it is expected to cost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import click

from lowtide.cli.options import ends_well

if TYPE_CHECKING:
    from lowtide.plan import RunPlan
    from lowtide.protocols import Store
    from lowtide.states import RunState

DONE, NOTHING_TO_DO = 0, 3
_RUN_ID = re.compile(r"[0-9a-f]{16}")
_ADDRESS = re.compile(r"(?P<root>.+)/(?P<prefix>runs/[^/]+/[^/]+/[0-9a-f]{16})/?")
_BEHIND = "\U0010fffd"
"""Sorts behind whatever else a path may go on with."""


@click.command()
@click.argument("run")
@click.option(
    "--job", type=click.Path(), default="lowtide.yaml", show_default=True, help="The job file, which names the root."
)
@ends_well
def approve(run: str, job: str) -> int:
    """Approve what a run is expected to cost, so that it goes on.

    RUN is the run's id, or the address of its folder in a root: then no job file is needed.
    """
    import time

    from lowtide.budget import approval
    from lowtide.cli import views
    from lowtide.journal import Journal
    from lowtide.ownership import this_owner

    place = _find(run, job)
    plan = _read_plan(place)
    journal = Journal(place.store, place.prefix, this_owner())
    state = journal.refresh()
    views.print_pairs(_described(plan, state))
    by, shown = approval.this_user(), approval.expected_usd(plan, state)
    if approval.approve(journal, plan, by=by, at=time.time(), usd=shown):
        click.echo(f"approved by {by}: who waits for the run goes on now; the same command as before does it as well")
        return DONE
    click.echo(f"nothing to approve: {_why(plan, journal.state)}", err=True)
    return NOTHING_TO_DO


class _Place(NamedTuple):
    """A run: its root, and its path in it."""

    store: Store
    prefix: str


def _find(run: str, job: str) -> _Place:
    from pathlib import Path

    from lowtide.connectors.stores import open_store
    from lowtide.errors import ConfigError
    from lowtide.job import load_job

    if address := _ADDRESS.fullmatch(run):
        return _Place(open_store(address["root"]), address["prefix"])
    if not _RUN_ID.fullmatch(run):
        raise ConfigError(
            f"{run!r} is no run; expected its id, 16 digits and letters a to f as `lowtide status` shows it, or the "
            "address of its folder, such as s3://bucket/lowtide/runs/weekly/2026-W47/0123456789abcdef"
        )
    if not Path(job).expanduser().exists():
        raise ConfigError(
            f"{job}: there is no such file; name the job file, which says where the run is: lowtide approve {run} "
            "--job JOB; or give the address of the run's folder"
        )
    loaded = load_job(Path(job))
    store = open_store(loaded.output.root)
    for window in _windows(store, loaded.name):
        prefix = f"runs/{loaded.name}/{window}/{run}"
        if store.info(f"{prefix}/plan.json") is not None:
            return _Place(store, prefix)
    raise ConfigError(f"job {loaded.name!r} has no run {run} under {store.uri}: is it a run of another job?")


def _windows(store: Store, job: str) -> list[str]:
    """The windows that the job has runs over, without a look at all that is in them."""
    found: list[str] = []
    start, after = f"runs/{job}/", ""
    while info := next(store.list(start, after=after), None):
        window = info.path[len(start) :].partition("/")[0]
        found.append(window)
        after = f"{start}{window}/{_BEHIND}"
    return found


def _read_plan(place: _Place) -> RunPlan:
    import msgspec

    from lowtide.errors import ConfigError, CorruptJournal, NotFound
    from lowtide.plan import RunPlan

    path = f"{place.prefix}/plan.json"
    uri = place.store.uri_of(path)
    try:
        return msgspec.json.decode(place.store.read(path), type=RunPlan)
    except NotFound:
        raise ConfigError(f"{uri}: there is no such file, so there is no such run") from None
    except msgspec.DecodeError as error:
        raise CorruptJournal(f"{uri}: not a plan that this version knows: {error}") from error


def _described(plan: RunPlan, state: RunState) -> list[tuple[str, str]]:
    from lowtide.budget import approval
    from lowtide.cli import views

    expected = approval.expected_usd(plan, state)
    documents = views.count(plan.files, "file") if plan.documents is None else f"{plan.documents.documents:,}"
    lines = [
        ("job", f"{plan.job}, window {plan.window}"),
        ("run", plan.run_id),
        ("documents", documents),
        ("where", f"{plan.backend}, model {plan.model}"),
        ("cost", f"about {views.usd(expected)} (prices: {plan.price_id})"),
    ]
    if expected > plan.cost_usd:
        lines.append(("planned", f"{views.usd(plan.cost_usd)}; more is to be asked, or attempts have cost in vain"))
    if plan.approve_above_usd is not None:
        lines.append(("asks above", views.usd(plan.approve_above_usd)))
    if approval.awaits_approval(plan, state):
        again = views.usd(approval.covered_usd(expected))
        lines.append(("asks again", f"once more than {again} is expected"))
    if plan.run_usd is not None:
        lines.append(("cap", views.usd(plan.run_usd)))
    return lines


def _why(plan: RunPlan, state: RunState) -> str:
    from lowtide.budget import approval

    if plan.approve_above_usd is None:
        return "the job sets no budget.approve_above_usd"
    if approval.expected_usd(plan, state) <= plan.approve_above_usd:
        return "the run costs no more than budget.approve_above_usd"
    if state.cancelled:
        return "the run is cancelled"
    if state.approved_usd is None:
        return "nothing is left to be asked"
    return "the run is approved already"
