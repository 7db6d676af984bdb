"""A run's whole plan: what a survey found, what it would cost at each backend, the one that is chosen, and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import msgspec

from lowtide.estimating import NO_HISTORY, Corpus, Estimate, History, estimate, read_history
from lowtide.ids import RECORD_ID_LENGTH
from lowtide.inputs import Inputs
from lowtide.money import rough
from lowtide.plan import (
    Candidate,
    PlannedDocuments,
    PlannedOption,
    PlannedReplacement,
    Range,
    RunPlan,
    Work,
    check_candidates,
    make_plan,
)
from lowtide.planning.choosing import Choice, Demand, Moments, choose, option, span, unable
from lowtide.planning.experience import Experience, read_experience
from lowtide.planning.published import NOTHING_PUBLISHED, PublishedDocuments
from lowtide.planning.survey import Asked, Counted, Survey, survey
from lowtide.protocols import Backend
from lowtide.sharding.lines import line_template

LATE = "TOO LATE:"
"""How a note begins that the run is not expected to be done by its deadline."""

_MARKER_LENGTH = 16


@dataclass(frozen=True)
class Before:
    """What is published for the window already, and may be replaced."""

    documents: PublishedDocuments = NOTHING_PUBLISHED
    replaced: PlannedReplacement | None = None


def plan_work(
    work: Work,
    inputs: Inputs,
    folder: Path,
    now: float,
    *,
    exact: bool,
    before: Before | None = None,
    refresh: int = 0,
    listen: Counted = lambda documents: None,
) -> RunPlan:
    """The plan for these inputs, with a backend chosen. With `exact` every document is read, else a sample.

    Spends nothing and writes nothing but to `folder`. Raises ConfigError if no backend can do all operations, and
    Transient or StoreError where the source or the root cannot be read.
    """
    before = before or Before()
    check_candidates(work.operations, work.allowed)
    found = survey(work, inputs, folder, exact=exact, published=before.documents, listen=listen)
    experience, history = read_experience(work.root, work.job), read_history(work.root, work.job)
    moments = Moments(now, experience.build_seconds(found.documents), now + work.deadline.total_seconds())
    options = [
        _option(work, candidate, asked, found, moments, experience, history)
        for candidate, asked in zip(work.allowed, found.asked, strict=True)
    ]
    choice = choose(options, moments)
    chosen, candidate = choice.option, work.allowed[choice.chosen]
    plan = make_plan(work.choosing(candidate), inputs, now, refresh=refresh)
    plan = msgspec.structs.replace(
        plan,
        input_tokens=chosen.input_tokens.expected,
        output_tokens=chosen.output_tokens.expected,
        cost_usd=chosen.cost_usd,
        price_id=chosen.price_id,
        documents=_documents(found, chosen),
        options=choice.options,
        replaces=None if before.replaced is None or before.replaced.run_id == plan.run_id else before.replaced,
    )
    return msgspec.structs.replace(plan, notes=tuple(_notes(work, candidate, plan, choice, found)))


def _option(
    work: Work,
    candidate: Candidate,
    asked: Asked | None,
    found: Survey,
    moments: Moments,
    experience: Experience,
    history: History,
) -> PlannedOption:
    backend = candidate.backend
    if asked is None:
        refusals = [f"operation {op.name!r}: {why}" for op in work.operations if (why := backend.refusal(op))]
        return unable(candidate, refusals)
    tokens = _tokens(work, backend, asked, found, history)
    limits = backend.limits
    here = experience.at(backend.name, backend.model).like(asked.total, work.shard_records, limits)
    demand = Demand(
        requests=asked.total,
        cached=asked.cached,
        twins=asked.twins,
        size=asked.text_bytes + _prompt_bytes(work, backend, asked.requests),
        input=tokens.input,
        output=tokens.output,
        basis=tokens.basis,
        wave_seconds=here.wave_seconds(limits),
        records_per_second=here.records_per_second(),
        runs=len(here.runs),
    )
    return option(candidate, demand, moments, work.shard_records)


def _tokens(work: Work, backend: Backend, asked: Asked, found: Survey, history: History) -> Estimate:
    """Tokens of these requests, by the bytes of their text: those that are read are not of the size of those asked."""

    def estimated(corpus: Corpus, known: History) -> Estimate:
        return estimate(
            corpus,
            provider=backend.provider,
            model=backend.model,
            operations=work.operations,
            requests=asked.requests,
            whole=found.exact,
            history=known,
        )

    whole = estimated(found.corpus, history)
    if not asked.total or not found.corpus.text_bytes:
        return whole
    ratio = asked.text_bytes / asked.total * found.corpus.documents / found.corpus.text_bytes
    prompts = estimated(Corpus(), NO_HISTORY).input

    def scaled(total: int, prompt: int) -> int:
        return max(prompt + round((total - prompt) * ratio), 0)

    return replace(
        whole,
        input=Range(
            scaled(whole.input.low, min(prompts.low, whole.input.low)),
            scaled(whole.input.expected, prompts.expected),
            scaled(whole.input.high, prompts.high),
        ),
    )


def _prompt_bytes(work: Work, backend: Backend, requests: Sequence[int]) -> int:
    """The bytes of all request lines beside the documents' text."""
    total = 0
    for operation, count in zip(work.operations, requests, strict=True):
        template = line_template(backend, operation)
        fixed = sum(map(len, template.literals)) + template.slots.count("record_id") * RECORD_ID_LENGTH
        total += count * (fixed + template.slots.count("marker") * _MARKER_LENGTH)
    return total


def _documents(found: Survey, chosen: PlannedOption) -> PlannedDocuments:
    return PlannedDocuments(
        exact=found.exact,
        read=found.read,
        documents=found.documents,
        new=found.new,
        changed=found.changed,
        unchanged=found.unchanged,
        unreadable=found.unreadable,
        asked=chosen.requests,
        cached=chosen.cached,
        twins=chosen.twins,
        text_bytes=found.text_bytes,
    )


def _notes(work: Work, candidate: Candidate, plan: RunPlan, choice: Choice, found: Survey) -> Iterator[str]:
    chosen, limits = choice.option, candidate.backend.limits
    if choice.late:
        late = span(chosen.finish - plan.deadline)
        yield f"{LATE} no backend is expected to meet the deadline; {chosen.backend} is done first, {late} after it"
    if not found.exact:
        yield f"estimated from a sample of {found.read:,} documents; lowtide plan reads them all"
    if chosen.on_demand:
        yield (
            f"a batch of {chosen.backend} needs {limits.minimum_records} requests: "
            f"{chosen.requests} go out one by one, on demand"
        )
    elif limits.minimum_records > 1 and chosen.requests:
        yield (
            f"fewer than {limits.minimum_records} requests, such as those of a further attempt, go out one by one, "
            "on demand"
        )
    if plan.approve_above_usd is not None and plan.cost_usd > plan.approve_above_usd:
        yield (
            f"costs more than approve_above_usd, {rough(plan.approve_above_usd)} USD: the run waits until somebody "
            "approves it"
        )
    if candidate.machines == 0 and chosen.requests:
        yield (
            "max_usd_per_hour is less than one machine costs now: none is started, and nothing is asked, until prices "
            "fall or you allow more"
        )
    yield from _tight_caps(work, candidate, chosen, found.asked[choice.chosen])


def _tight_caps(work: Work, candidate: Candidate, chosen: PlannedOption, asked: Asked | None) -> Iterator[str]:
    """Caps that a single shard would pass, if each of its bytes were a token and each answer as long as it may be."""
    if not chosen.requests or asked is None:
        return
    worst = worst_shard(work, candidate, chosen, asked)
    price = candidate.price.of(on_demand=chosen.on_demand)
    least = price.least + price.start
    caps = [("budget.run_usd", work.run_usd)] if work.run_usd is not None else []
    caps += [(cap.label, cap.usd) for cap in work.caps]
    for name, usd in caps:
        if least > usd:
            yield (
                f"a shard reserves at least {rough(least)} USD before it is sent, for the start of a machine and 10 "
                f"minutes of it, and {name} allows {rough(usd)}: nothing will be asked; raise it, or let engine.boot "
                "be shorter, if the engine always starts faster"
            )
        elif worst > usd:
            yield (
                f"a shard of {-(-chosen.requests // chosen.shards):,} requests reserves up to {rough(worst)} USD "
                f"before it is sent, and {name} allows {rough(usd)}: nothing might be asked; make shards smaller "
                "with limits.shard_records"
            )


def worst_shard(work: Work, candidate: Candidate, chosen: PlannedOption, asked: Asked) -> Decimal:
    """USD that a full shard reserves, if it is one of the first: what the engine reserves before it is sent."""
    price = candidate.price.of(on_demand=chosen.on_demand)
    size = asked.text_bytes + _prompt_bytes(work, candidate.backend, asked.requests)
    longest = max(operation.max_output_tokens for operation in work.operations)
    records = -(-chosen.requests // chosen.shards)
    return price.at_most(size // chosen.shards, records, longest, starting=True)
