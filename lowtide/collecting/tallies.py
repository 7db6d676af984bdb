"""Tokens by type and by what they were good for: what an attempt adds to the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lowtide.events import Tally
from lowtide.protocols import Backend
from lowtide.records import Answer, Usage


class Tallies(Counter[tuple[str, str]]):
    """Quantities by token type and waste; waste is "" for tokens that ended in a kept answer."""

    def add(self, answer: Answer, waste: str, sign: int = 1) -> None:
        """Count one answer's tokens by the ledger's types, none of which is part of another."""
        for token_type, quantity in (
            ("input", answer.input_tokens - answer.cached_tokens),
            ("cached_input", answer.cached_tokens),
            ("output", answer.output_tokens - answer.reasoning_tokens),
            ("reasoning", answer.reasoning_tokens),
        ):
            self[token_type, waste] += sign * quantity

    def move(self, answer: Answer, waste: str) -> None:
        """What was counted as kept turns out to be waste."""
        self.add(answer, "", -1)
        self.add(answer, waste)

    def reconcile(self, usage: Usage | None, waste: str = "lost") -> None:
        """Count as waste what the provider counts for the batch beyond what its lines do."""
        if usage is None:
            return
        known: Counter[str] = Counter()
        for (token_type, _), quantity in self.items():
            known[token_type] += quantity
        # Totals count; who gives no details has counted what they stand for as plain tokens.
        for plain, special, total, detail in (
            ("input", "cached_input", usage.input_tokens, usage.cached_tokens),
            ("output", "reasoning", usage.output_tokens, usage.reasoning_tokens),
        ):
            beyond = max(0, total - known[plain] - known[special])
            of_special = min(beyond, max(0, detail - known[special]))
            self[special, waste] += of_special
            self[plain, waste] += beyond - of_special

    def entries(self) -> tuple[Tally, ...]:
        """One entry for each type and kind of waste that any tokens fell to."""
        return tuple(
            Tally(token_type, quantity, waste) for (token_type, waste), quantity in sorted(self.items()) if quantity
        )


def waste_of(backend: Backend, lines: Iterable[bytes], usage: Usage | None, waste: str) -> tuple[Tally, ...]:
    """All tokens of a batch whose answers nobody wants, as waste of one kind."""
    tallies = Tallies()
    seen: set[tuple[str, int]] = set()
    for line in lines:
        try:
            answer = backend.parse(line) if line else None
        except ValueError:
            # Its tokens are in the provider's totals, where it gives any.
            continue
        if answer is not None and (answer.record_id, hash(answer)) not in seen:
            seen.add((answer.record_id, hash(answer)))
            tallies.add(answer, waste)
    tallies.reconcile(usage, waste)
    return tallies.entries()
