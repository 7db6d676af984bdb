"""Looking at batches that are out, and what this process sees of them."""

from __future__ import annotations

from collections.abc import Callable

from lowtide import events as e
from lowtide.engine import collecting
from lowtide.engine.context import Context
from lowtide.errors import Terminal, Transient

_LONGEST_BLIND = 6 * 3600.0
"""Seconds for which a batch may be out of sight before somebody should know."""


class Lookout:
    """What a process sees of a run's batches. `is_readable` says whether the job file can read what they answer."""

    def __init__(self, context: Context, is_readable: Callable[[], bool]) -> None:
        self._context = context
        self._is_readable = is_readable
        self._answered: dict[tuple[int, int], int] = {}
        self._unseen: dict[int, float] = {}
        self.blind = ""

    def answered(self, number: int, attempt: int) -> int:
        """How many records of a batch were answered when it was last looked at."""
        return self._answered.get((number, attempt), 0)

    def poll(self, number: int, *, stop: bool) -> None:
        """Look at a batch. An error of the poll says nothing about the batch, so it is passed over; `blind` says it.

        Raises Terminal if it cannot be looked at for hours on end: it may have been deleted.
        """
        context, shard = self._context, self._context.state.shards[number]
        # Before the look, where that is what asks its records, or has machines started.
        at_once = stop and (shard.on_demand or context.backend.limits.machines > 0)
        try:
            if at_once:
                context.backend.cancel(shard.batch_id)
            status = context.backend.poll(shard.batch_id)
            if stop and not at_once and status.outcome is None:
                context.backend.cancel(shard.batch_id)
        except Transient as error:
            self.blind = f"{context.backend.name} could not be asked: {error}"
            blind = self.seconds_blind(number)
            if stop and blind > context.work.grace.total_seconds() and self._is_readable():
                collecting.abandon(context, number)
            elif blind > _LONGEST_BLIND:
                raise Terminal(
                    f"batch {shard.batch_id} could not be looked at for {_LONGEST_BLIND / 3600:.0f} hours: {error}; "
                    "nothing is lost, and the same command goes on once it can; lowtide cancel gives it up"
                ) from error
            return
        self.saw(number)
        if status.outcome is None and status.reason:
            self.blind = f"{context.backend.name}: {status.reason}"
        self._answered[number, shard.attempt] = min(status.answered, shard.records)
        if status.outcome is not None:
            context.journal.append(
                e.Ended(
                    at=context.clock(),
                    shard=number,
                    attempt=shard.attempt,
                    outcome=status.outcome,
                    provider_state=status.provider_state,
                    reason=status.reason,
                    compute_seconds=status.compute_seconds,
                    charged=status.charged,
                    usage=status.usage,
                    fault=status.fault,
                    region=status.region,
                    compute=status.compute,
                )
            )

    def seconds_blind(self, number: int) -> float:
        """For how long this process has not seen what a shard's batch does."""
        now = self._context.clock()
        return now - self._unseen.setdefault(number, now)

    def saw(self, number: int) -> None:
        """It has seen it, or what it has answered."""
        self._unseen.pop(number, None)
