"""Collecting and settling: from an ended batch to kept answers, and from a shard with nothing to ask to its rows."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pyarrow as pa

from lowtide import events as e
from lowtide.collecting.outcomes import Outcomes, split_lines
from lowtide.collecting.rows import Verdict, build_rows, write_rows
from lowtide.collecting.tallies import waste_of
from lowtide.decisions import CLOCK_SKEW
from lowtide.engine.context import Context
from lowtide.engine.submitting import growing_pause, leave
from lowtide.errors import LowtideError, Transient
from lowtide.shards import Attempt, Phase, ShardState


class NotYet(Transient):
    """Answers that the provider counts are not in its output yet. Nothing is wrong so far."""


def collect(context: Context, number: int) -> None:
    """Fetch an ended batch's output, keep it as it came, and join it; then build the next attempt or settle the shard.

    Reads only what the provider will not change any more, so two processes that collect write the same. Raises NotYet
    while answers that the provider has counted are missing from its output, for as long as they may just be late.
    """
    shard, cancelled = context.state.shards[number], context.state.cancelled
    index = context.index(shard)
    outcomes = context.outcomes(shard, index)
    asked = _asked(outcomes, shard)
    raw_bytes = 0

    def count(size: int) -> None:
        nonlocal raw_bytes
        raw_bytes += size

    outcomes.collect(context.backend, _output_lines(context, shard, count), shard.attempt, context.price_of(shard))
    lost = outcomes.find_lost(asked, shard.charged, completed=shard.outcome == "completed")
    if lost and _may_be_late(context, shard):
        raise NotYet(f"{len(lost)} answers of batch {shard.batch_id} are counted, and not in its output yet")
    outcomes.give_up(lost, shard.attempt)
    outcomes.tallies.reconcile(shard.usage)
    if shard.absences:
        # What was concluded to be absent, and replaced, may have come to light since.
        others = [found for found in context.backend.find(_token(context, shard)) if found != shard.batch_id]
        leave(context, shard, others, on_demand=shard.on_demand)
    remaining = outcomes.remaining(asked)
    tries = shard.attempt - shard.base
    # At the deadline, waiting for room ends as every other trouble does.
    free = shard.fault == "quota" and context.clock() < context.plan.deadline
    again = bool(remaining) and not cancelled and shard.fault != "fatal"
    again &= free or tries < context.plan.attempts
    left = outcomes.remaining(range(shard.total), lost=True)
    collected = e.Collected(
        at=context.clock(),
        shard=number,
        attempt=shard.attempt,
        remaining=len(left),
        counts=outcomes.counts(asked),
        tallies=outcomes.tallies.entries(),
        answers=_save_answers(context, shard, outcomes) if left and outcomes.heard else "",
        raw_bytes=raw_bytes,
    )
    if again:
        context.journal.append(collected, _next_attempt(context, shard, remaining, asked, free=free))
    else:
        settled = _settled(context, shard, index, outcomes, _leftover(context, shard))
        if cancelled and remaining:
            settled = msgspec.structs.replace(settled, given_up="cancelled")
        context.journal.append(collected, settled, guard=lambda now: now.cancelled == cancelled)
    _discard(context, shard.batch_id)
    for surplus in context.state.attempts.values():
        if surplus.surplus and surplus.collected_at and (surplus.shard, surplus.attempt) == (number, shard.attempt):
            _discard(context, surplus.batch_id)


def abandon(context: Context, number: int) -> None:
    """Settle a shard whose batch, or whose output, is out of reach in a run that somebody wants to end.

    Nobody has said that its records were not answered, so they count as lost, and are not asked again by themselves;
    and what was reserved for them stays, since all of it may be billed.
    """
    shard = context.state.shards[number]
    index = context.index(shard)
    outcomes = context.outcomes(shard, index)
    asked = _asked(outcomes, shard)
    outcomes.give_up(asked, shard.attempt)
    outcomes.tallies.reconcile(shard.usage)
    now = context.clock()
    counted = context.state.attempts[f"{number}-{shard.attempt}"]
    reached: list[e.AnyEvent] = []
    if shard.phase is Phase.SUBMITTED:
        out_of_reach = e.Ended(
            at=now, shard=number, attempt=shard.attempt, outcome="cancelled", provider_state="out of reach"
        )
        reached.append(out_of_reach)
    collected = e.Collected(
        at=now,
        shard=number,
        attempt=shard.attempt,
        remaining=len(outcomes.remaining(range(shard.total), lost=True)),
        counts=outcomes.counts(asked),
        tallies=counted.tallies if counted.counted_at else outcomes.tallies.entries(),
        answers=_save_answers(context, shard, outcomes),
        # Unless the provider has said what it bills, it may bill all that was reserved.
        unknown=not counted.counted_at and shard.usage is None and shard.charged != 0,
    )
    settled = _settled(context, shard, index, outcomes, Verdict("skipped", "cancelled"))
    context.journal.append(*reached, collected, settled, guard=lambda state: state.shards[number] == shard)


def _token(context: Context, shard: ShardState) -> str:
    return context.plan.token(shard.number, shard.attempt)


def _asked(outcomes: Outcomes, shard: ShardState) -> Sequence[int]:
    """The records of the attempt at hand. Those that were lost before are among them only if somebody wanted it."""
    everything = range(shard.total)
    if shard.attempt == 1:
        return everything
    open_ = outcomes.remaining(everything)
    return open_ if len(open_) == shard.records else outcomes.remaining(everything, lost=True)


def _discard(context: Context, batch_id: str) -> None:
    """Tidy up at the provider. What cannot be removed there, for whatever reason, must not hold the run up."""
    with contextlib.suppress(LowtideError):
        context.backend.discard(batch_id)


def _may_be_late(context: Context, shard: ShardState) -> bool:
    """Whether so little time has passed since the batch ended that its output may still be growing.

    By this process's own clock, or by that of the process that saw it end and what two clocks may differ.
    """
    now, grace = context.clock(), context.work.grace.total_seconds()
    first = context.first_incomplete.setdefault((shard.number, shard.attempt), now)
    return now - first < grace and now - shard.since < grace + CLOCK_SKEW


def drain(context: Context, batch_id: str) -> None:
    """Stop a surplus batch; once it has ended, count all of its tokens as waste. Its answers are nobody's."""
    surplus = context.state.attempts.get(batch_id)
    if surplus is None or surplus.collected_at:
        # Adopted meanwhile, or drained by somebody else.
        return
    if surplus.on_demand:
        context.backend.cancel(batch_id)
    status = context.backend.poll(batch_id)
    if status.outcome is None:
        context.backend.cancel(batch_id)
        return
    tallies = waste_of(context.backend, _output_lines(context, surplus, lambda size: None), status.usage, "duplicate")
    drained = e.Drained(
        at=context.clock(),
        batch_id=batch_id,
        outcome=status.outcome,
        tallies=tallies,
        compute_seconds=status.compute_seconds,
        region=status.region,
        compute=status.compute,
    )
    context.journal.append(drained)
    # Batches with one token may share their input: it goes when the one that is kept needs it no more.
    kept = context.state.attempts.get(f"{surplus.shard}-{surplus.attempt}")
    if kept is not None and kept.collected_at:
        _discard(context, batch_id)


def count(context: Context, number: int) -> None:
    """Count the tokens of an ended batch whose answers nobody can read as the job file is now, so all as `lost`.

    Its answers stay to be collected, and its tokens to be counted for what they are, once the job file is put back.
    """
    shard = context.state.shards[number]
    lines = _output_lines(context, shard, lambda size: None)
    tallies = waste_of(context.backend, lines, shard.usage, "lost")
    counted = e.Counted(at=context.clock(), shard=number, attempt=shard.attempt, tallies=tallies)
    context.journal.append(counted, guard=lambda state: state.shards[number] == shard)


def settle(context: Context, number: int, reason: str, detail: str = "") -> None:
    """Settle a shard that will not be submitted (any more): there is nothing to ask, or nobody may.

    Its rows say `detail`, if there is any, in place of the reason.
    """
    shard, cancelled = context.state.shards[number], context.state.cancelled
    if reason == "cancelled" and not cancelled:
        # Decided before somebody asked for the run again.
        return
    index = context.index(shard)
    outcomes = context.outcomes(shard, index)
    left = len(outcomes.remaining(range(shard.total), lost=True))
    settled = _settled(context, shard, index, outcomes, Verdict("skipped", detail or reason))
    context.journal.append(
        msgspec.structs.replace(settled, given_up=reason, remaining=left),
        guard=lambda now: now.shards[number] == shard and now.cancelled == cancelled,
    )


def reopen(context: Context, number: int) -> None:
    """Build another attempt from a settled shard's unanswered rows.

    Those whose answers were lost after they were paid for are asked again only if that was asked for.
    """
    shard, everything = context.state.shards[number], context.state.reopen_everything
    outcomes = context.outcomes(shard, context.index(shard))
    remaining = outcomes.remaining(range(shard.total), lost=everything)
    # How many there are says nothing: they may be others than those that were asked last.
    context.journal.append(_next_attempt(context, shard, remaining, asked=()))


def _leftover(context: Context, shard: ShardState) -> Verdict:
    if context.state.cancelled:
        return Verdict("skipped", "cancelled")
    if shard.fault == "fatal":
        return Verdict("error", shard.reason)
    tries = shard.attempt - shard.base
    reason = f"no answer after {tries} attempt{'s' if tries > 1 else ''}"
    return Verdict("error", f"{reason}: {shard.reason}" if shard.reason else reason)


def _output_lines(context: Context, batch: ShardState | Attempt, count: Callable[[int], None]) -> Iterator[bytes]:
    """Every line that the provider wrote; the files are kept on the way."""
    number = batch.number if isinstance(batch, ShardState) else batch.shard
    folder = f"raw/s{number:05d}-a{batch.attempt}"
    if isinstance(batch, Attempt):
        folder += f"-{hashlib.sha256(batch.batch_id.encode()).hexdigest()[:8]}"
    for output in context.backend.outputs(batch.batch_id):
        name = output.name.replace("\\", "/").rpartition("/")[2] or "output"
        path = context.path(f"{folder}/{name}")
        with context.store.writer(path) as out:

            def kept(chunks: Iterator[bytes] = output.chunks) -> Iterator[bytes]:
                for chunk in chunks:
                    out.write(chunk)
                    count(len(chunk))
                    yield chunk

            yield from split_lines(kept())


def _save_answers(context: Context, shard: ShardState, outcomes: Outcomes) -> str:
    name = f"answers/s{shard.number:05d}-a{shard.attempt}-{secrets.token_hex(3)}.arrow"
    with context.store.writer(context.path(name)) as out:
        outcomes.save(out)
    return name


def _next_attempt(
    context: Context, shard: ShardState, remaining: Sequence[int], asked: Sequence[int], *, free: bool = False
) -> e.Retrying:
    """Write the request lines that are still to be answered. Line `n` of the first attempt's file is ordinal `n`.

    If those are all that the last attempt `asked`, its file serves again.

    A batch that could not begin, or brought nothing, is given time.
    """
    attempt = shard.attempt + 1
    if remaining and list(remaining) == list(asked):
        return _retrying(context, shard, shard.requests, shard.records, shard.size, free=free)
    name = f"requests/s{shard.number:05d}-a{attempt}-{secrets.token_hex(3)}.jsonl"
    wanted = set(remaining)
    size = 0
    with (
        context.store.open(context.path(shard.first_requests)) as source,
        context.store.writer(context.path(name)) as out,
    ):
        for ordinal, line in enumerate(source):
            if ordinal in wanted:
                size += out.write(line)
    return _retrying(context, shard, name, len(remaining), size, free=free)


def _retrying(context: Context, shard: ShardState, requests: str, records: int, size: int, *, free: bool) -> e.Retrying:
    now = context.clock()
    pause = growing_pause(shard.idle) if free else growing_pause(shard.attempt) if shard.outcome == "failed" else 0.0
    return e.Retrying(
        at=now,
        shard=shard.number,
        attempt=shard.attempt + 1,
        requests=requests,
        records=records,
        size=size,
        not_before=now + pause if pause else 0.0,
        free=free,
    )


def _settled(context: Context, shard: ShardState, index: pa.Table, outcomes: Outcomes, leftover: Verdict) -> e.Settled:
    batches = [attempt for attempt in context.state.attempts.values() if attempt.shard == shard.number]
    rows = build_rows(
        index,
        outcomes,
        operations=context.work.operations,
        requested_at=max((batch.submitted_at for batch in batches), default=0.0),
        attempts=max((batch.attempt for batch in batches), default=0),
        field_names=context.plan.fields,
        leftover=leftover,
        on_demand=context.work.price.on_demand,
    )
    name = f"rows/s{shard.number:05d}-{secrets.token_hex(3)}.arrow"
    with context.store.writer(context.path(name)) as out:
        write_rows(rows, out)
    counted = rows["status"].value_counts().to_pylist()
    counts = {str(pair["values"]): int(pair["counts"]) for pair in counted}
    return e.Settled(at=context.clock(), shard=shard.number, rows=name, counts=counts)
