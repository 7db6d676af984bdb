"""What has changed since a plan was made, in words: why it is not applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from lowtide.inputs import Inputs
from lowtide.plan import PlannedPrice, RunPlan, Work
from lowtide.planning.planfile import (
    PlanFile,
    PlannedCandidate,
    PlannedSettings,
    candidates_of,
    compare_prints,
    prints_of,
)

_MILLION = Decimal(1_000_000)


def changes_of_work(planned: PlanFile, work: Work) -> Iterator[str]:
    """What the job file, its schemas or the price book say otherwise than when the plan was made."""
    if work.job != planned.plan.job:
        yield f"job: the file describes {work.job!r} now, and the plan is of {planned.plan.job!r}"
    if (work.window.start, work.window.end) != (planned.plan.window_start, planned.plan.window_end):
        before, now = _bound(planned.plan.window_start), _bound(work.window.start)
        yield f"timezone: window {planned.plan.window} begins at {now} now, and at {before} in the plan"
    yield from _operations(planned, work)
    yield from _candidates(planned, work)
    yield from _settings(planned.settings, work)


def changes_of_inputs(planned: PlanFile, inputs: Inputs) -> Iterator[str]:
    """What the source holds otherwise."""
    if inputs.sha256 == planned.plan.inputs_sha256:
        return
    found = compare_prints(planned.prints, prints_of(inputs))
    counts = ((found.more, "more"), (found.less, "less"), (found.changed, "changed"))
    told = [f"{number:,} file{'s' if number != 1 else ''} {what}" for number, what in counts if number]
    yield f"inputs: {', '.join(told) or 'the listing has another order'}"


def changes_of_run(begun: RunPlan, plan: RunPlan) -> Iterator[str]:
    """What a run goes by otherwise than this plan says: where it asks, at which price, and how much it may spend."""
    if (begun.backend, begun.model, begun.region) != (plan.backend, plan.model, plan.region):
        was, now = (f"{one.backend}, model {one.model}, {one.region or 'no region'}" for one in (begun, plan))
        yield f"it was begun at {was}, and the plan names {now}"
    none = PlannedPrice("none", "", {})
    if begun.price is not None and plan.price is not None:
        yield from _price(f"price of {begun.backend}, {begun.model}", begun.price, plan.price)
        words = f"price of {begun.backend}, {begun.model}, on demand"
        yield from _price(words, begun.price.on_demand or none, plan.price.on_demand or none)
    for name, old, new in (
        ("budget.approve_above_usd", begun.approve_above_usd, plan.approve_above_usd),
        ("budget.run_usd", begun.run_usd, plan.run_usd),
        ("limits.attempts", begun.attempts, plan.attempts),
    ):
        if old != new:
            yield f"{name}: {_shown(name, old)} -> {_shown(name, new)}"


_SETTINGS: Mapping[str, str] = {
    "root": "output.root",
    "shard_records": "limits.shard_records",
    "attempts": "limits.attempts",
    "deadline_seconds": "deadline",
    "run_usd": "budget.run_usd",
    "approve_above_usd": "budget.approve_above_usd",
    "tags": "output.tags",
}


def _settings(before: PlannedSettings, work: Work) -> Iterator[str]:
    # Written down and read again, as those of the plan were: no tuple is told from a list then.
    now = msgspec.json.decode(msgspec.json.encode(PlannedSettings.of(work)), type=PlannedSettings)
    for field, name in _SETTINGS.items():
        old, new = getattr(before, field), getattr(now, field)
        if old != new:
            yield f"{name}: {_shown(field, old)} -> {_shown(field, new)}"
    for name in sorted(before.reading.keys() | now.reading.keys()):
        old, new = before.reading.get(name), now.reading.get(name)
        if old != new:
            yield f"source.{name}: {_shown(name, old)} -> {_shown(name, new)}"


def _bound(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "no time"


def _shown(field: str, value: object) -> str:
    if field == "deadline_seconds" and isinstance(value, float):
        return str(timedelta(seconds=value))
    return "none" if value is None else str(value)


def _operations(planned: PlanFile, work: Work) -> Iterator[str]:
    before = {operation.name: operation for operation in planned.plan.operations}
    now = {operation.name: operation for operation in work.operations}
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            yield f"operation {name!r}: no longer asked"
        elif name not in before:
            yield f"operation {name!r}: new"
        elif before[name].version != now[name].version:
            yield f"operation {name!r}: its prompt, schema or parameters have changed"
    if before.keys() == now.keys() and list(before) != list(now):
        yield "operations: in another order"


def _candidates(planned: PlanFile, work: Work) -> Iterator[str]:
    """Backends are told from each other by their name, then by model and region."""
    before, now = list(planned.candidates), list(candidates_of(work))
    for found in list(before):
        same = next((other for other in now if _key(other) == _key(found)), None)
        same = same or next((other for other in now if (other.backend, other.region) == _key(found)[::2]), None)
        same = same or next((other for other in now if other.backend == found.backend), None)
        if same is None:
            continue
        before.remove(found)
        now.remove(same)
        yield from _candidate(found, same)
    for found in before:
        yield f"backend {found.backend}, model {found.model}: no longer in the job file"
    for found in now:
        yield f"backend {found.backend}, model {found.model}: new in the job file"


def _key(candidate: PlannedCandidate) -> tuple[str, str, str]:
    return candidate.backend, candidate.model, candidate.region


def _candidate(before: PlannedCandidate, now: PlannedCandidate) -> Iterator[str]:
    if before.model != now.model:
        yield f"model of {before.backend}: {before.model} -> {now.model}"
    if before.region != now.region:
        yield f"region of {before.backend}: {before.region or 'not told'} -> {now.region or 'not told'}"
    if before.parameters != now.parameters:
        yield f"parameters of {before.backend}: {before.parameters} -> {now.parameters}"
    yield from _price(f"price of {before.backend}, {now.model}", before.price, now.price)
    if before.price.on_demand != now.price.on_demand:
        none = PlannedPrice("none", "", {})
        words = f"price of {before.backend}, {now.model}, on demand"
        yield from _price(words, before.price.on_demand or none, now.price.on_demand or none)


def _price(what: str, before: PlannedPrice, now: PlannedPrice) -> Iterator[str]:
    for token_type in sorted(before.per_unit.keys() | now.per_unit.keys()):
        old, new = before.per_unit.get(token_type), now.per_unit.get(token_type)
        if old != new:
            yield f"{what}: {token_type} {_per_million(old)} -> {_per_million(new)} USD a million"


def _per_million(price: Decimal | None) -> str:
    return "none" if price is None else f"{(price * _MILLION).normalize():f}"
