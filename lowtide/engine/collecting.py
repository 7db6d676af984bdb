"""Collecting and settling: from an ended batch to kept answers, and from a shard with nothing to ask to its rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pyarrow as pa

from lowtide import events as e
from lowtide.collecting.outcomes import Outcomes, split_lines
from lowtide.collecting.rows import Verdict, build_rows, write_rows
from lowtide.engine.context import Context
from lowtide.states import ShardState


def collect(context: Context, number: int) -> None:
    """Fetch an ended batch's output, keep it as it came, and join it; then build the next attempt or settle the shard.

    Reads only what the provider will not change any more, so two processes that collect write the same.
    """
    shard, cancelled = context.state.shards[number], context.state.cancelled
    index = context.index(shard)
    outcomes = context.outcomes(shard, index)
    asked = outcomes.remaining(range(shard.total)) if shard.attempt > 1 else range(shard.total)
    raw_bytes = 0

    def count(size: int) -> None:
        nonlocal raw_bytes
        raw_bytes += size

    outcomes.collect(context.backend, _output_lines(context, shard, count), shard.attempt)
    remaining = outcomes.remaining(asked)
    again = bool(remaining) and shard.attempt - shard.base < context.plan.attempts and not cancelled
    collected = e.Collected(
        at=context.clock(),
        shard=number,
        attempt=shard.attempt,
        remaining=len(remaining),
        counts=outcomes.counts(asked),
        tallies=outcomes.tally(),
        answers=_save_answers(context, shard, outcomes) if remaining else "",
        raw_bytes=raw_bytes,
    )
    if again:
        context.journal.append(collected, _next_attempt(context, shard, remaining))
    else:
        settled = _settled(context, shard, index, outcomes, _leftover(context, shard))
        if cancelled and remaining:
            settled = msgspec.structs.replace(settled, given_up="cancelled")
        context.journal.append(collected, settled, guard=lambda now: now.cancelled == cancelled)


def settle(context: Context, number: int, reason: str) -> None:
    """Settle a shard that will not be submitted (any more): there is nothing to ask, or nobody may."""
    shard, cancelled = context.state.shards[number], context.state.cancelled
    if reason == "cancelled" and not cancelled:
        # Decided before somebody asked for the run again.
        return
    index = context.index(shard)
    outcomes = context.outcomes(shard, index)
    settled = _settled(context, shard, index, outcomes, Verdict("skipped", reason))
    context.journal.append(
        msgspec.structs.replace(settled, given_up=reason),
        guard=lambda now: now.shards[number] == shard and now.cancelled == cancelled,
    )


def reopen(context: Context, number: int) -> None:
    """Build another attempt from a settled shard's unanswered rows."""
    shard = context.state.shards[number]
    outcomes = context.outcomes(shard, context.index(shard))
    context.journal.append(_next_attempt(context, shard, outcomes.remaining(range(shard.total))))


def _leftover(context: Context, shard: ShardState) -> Verdict:
    if context.state.cancelled:
        return Verdict("skipped", "cancelled")
    tries = shard.attempt - shard.base
    reason = f"no answer after {tries} attempt{'s' if tries > 1 else ''}"
    return Verdict("error", f"{reason}: {shard.reason}" if shard.reason else reason)


def _output_lines(context: Context, shard: ShardState, count: Callable[[int], None]) -> Iterator[bytes]:
    """Every line that the provider wrote; the files are kept on the way."""
    for output in context.backend.outputs(shard.batch_id):
        name = output.name.replace("\\", "/").rpartition("/")[2] or "output"
        path = context.path(f"raw/s{shard.number:05d}-a{shard.attempt}/{name}")
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


def _next_attempt(context: Context, shard: ShardState, remaining: Sequence[int]) -> e.Retrying:
    """Write the request lines that are still to be answered. Line `n` of the first attempt's file is ordinal `n`."""
    attempt = shard.attempt + 1
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
    return e.Retrying(
        at=context.clock(), shard=shard.number, attempt=attempt, requests=name, records=len(remaining), size=size
    )


def _asked_at(context: Context, shard: ShardState) -> float:
    """When the shard's latest batch was accepted; 0 if there was none."""
    batches = (attempt.submitted_at for attempt in context.state.attempts.values() if attempt.shard == shard.number)
    return max(batches, default=0.0)


def _settled(context: Context, shard: ShardState, index: pa.Table, outcomes: Outcomes, leftover: Verdict) -> e.Settled:
    rows = build_rows(
        index,
        outcomes,
        operations=len(context.work.operations),
        price=context.work.price,
        requested_at=_asked_at(context, shard),
        field_names=context.plan.fields,
        leftover=leftover,
    )
    name = f"rows/s{shard.number:05d}-{secrets.token_hex(3)}.arrow"
    with context.store.writer(context.path(name)) as out:
        write_rows(rows, out)
    counted = rows["status"].value_counts().to_pylist()
    counts = {str(pair["values"]): int(pair["counts"]) for pair in counted}
    return e.Settled(at=context.clock(), shard=shard.number, rows=name, counts=counts)
