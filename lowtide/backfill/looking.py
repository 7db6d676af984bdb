"""What a backfill finds for one window: what is published, which run is under way, and why it is run or passed over."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from lowtide import openruns
from lowtide.backfill.asking import Reprocess
from lowtide.engine.publishing import published_table
from lowtide.errors import CorruptJournal, NotFound
from lowtide.journal import Journal
from lowtide.plan import RunPlan, Work, run_id_of
from lowtide.protocols import Store
from lowtide.states import RunState


@dataclass(frozen=True, slots=True)
class Need:
    """Why a window is run, in a word, or with "" why it is not. `count` says that its documents have to be counted.

    `refresh` asks everything anew, `retry` what ended without an answer.
    """

    word: str
    why: str = ""
    count: bool = False
    refresh: bool = False
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A run of a window: its plan, and where it stands."""

    plan: RunPlan
    state: RunState


def need_of(work: Work, inputs_sha256: str, reprocess: Reprocess, *, backfill: str, ended: Collection[str]) -> Need:
    """Whether the window is run.

    `backfill` is the id of the backfill that asks, `ended` are the paths of its runs that have ended. Reads plans and
    journals, and no document.
    """
    store, job, window = work.root, work.job, work.window.name
    there = published_table(store, job, window)
    refresh = reprocess == "all"
    if is_under_way(work, backfill):
        return Need("begun", "a run of this backfill is under way", refresh=refresh)
    if there.etag is None:
        return Need("new", "never published", refresh=refresh)
    known = find(store, f"{work.folder}/{there.run_id}") if there.run_id else None
    if reprocess == "all":
        asked_anew = known is not None and known.plan.prefix in ended and not _cut_short(known)
        return Need("", "asked anew by this backfill") if asked_anew else Need("all", "everything anew", refresh=True)
    if known is None:
        return Need("", "published by a run of which nothing is left; --reprocess all asks it anew")
    same = asks_the_same(known.plan, work)
    if reprocess == "changed":
        why = "another prompt, schema, model or parameter than published"
        return Need("", "published with these prompts and this model") if same else Need("changed", why)
    if not same:
        return Need("", "published with another prompt, schema or model; --reprocess changed asks it anew")
    if _cut_short(known):
        return Need("rest", "published without what a budget or a cancel left unasked")
    if reprocess == "failed":
        return _need_of_failed(known, ended)
    if (known.plan.window_start, known.plan.window_end) != (work.window.start, work.window.end):
        # Whether its documents have rows says nothing: some of those rows belong to another window now.
        return Need("moved", "published for other hours: the job's time zone has changed")
    if known.plan.inputs_sha256 == inputs_sha256:
        return Need("", "every document has its row")
    return Need("late", "documents have come since it was published", count=True)


def _need_of_failed(known: Found, ended: Collection[str]) -> Need:
    if not any(shard.remaining for shard in known.state.shards.values() if shard.rows):
        return Need("", "every row has its answer")
    if known.plan.prefix in ended:
        return Need("", "asked again by this backfill, and still without an answer")
    return Need("failed", "rows without an answer", retry=True)


def is_under_way(work: Work, backfill: str) -> bool:
    """Whether a run of the window is open that this backfill has begun."""
    store, job, window = work.root, work.job, work.window.name
    for run_id in openruns.ids_of(store, job, window):
        asked = openruns.read_asked(store, job, window, run_id)
        if asked is not None and asked.backfill == backfill:
            found = find(store, f"{work.folder}/{run_id}")
            if found is not None and not found.state.published_at:
                return True
    return False


def run_begun(work: Work, inputs_sha256: str) -> Found | None:
    """The open run of the window that is about just these documents and questions."""
    for run_id in openruns.ids_of(work.root, work.job, work.window.name):
        found = find(work.root, f"{work.folder}/{run_id}")
        if found is None or found.plan.inputs_sha256 != inputs_sha256:
            continue
        if run_id_of(work, inputs_sha256, found.plan.refresh) == run_id and (found.plan.refresh or not work.refresh):
            return found
    return None


def asks_the_same(plan: RunPlan, work: Work) -> bool:
    """Whether a run asked what the job asks now: the same operations, of one of its models, with its parameters."""
    if [(op.name, op.version) for op in plan.operations] != [(op.name, op.version) for op in work.operations]:
        return False
    models = [(found.backend.model, dict(found.backend.parameters)) for found in work.allowed]
    return (plan.model, plan.parameters) in models


def find(store: Store, prefix: str) -> Found | None:
    """The run at this path of the root; None if there is none, or nothing but a plan that was never asked for."""
    try:
        plan = msgspec.json.decode(store.read(f"{prefix}/plan.json"), type=RunPlan)
    except NotFound:
        return None
    except msgspec.DecodeError as error:
        raise CorruptJournal(
            f"{store.uri_of(prefix)}/plan.json: not a plan that this version knows: {error}"
        ) from error
    return Found(plan, Journal(store, prefix, "").refresh())


def _cut_short(known: Found) -> bool:
    return any(shard.given_up for shard in known.state.shards.values())
