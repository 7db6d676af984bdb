"""Why a price is not for the book, in the words of all importers: so what was left out can be counted by reason."""

from __future__ import annotations

from collections.abc import Iterable, Set

OTHER_TIER = "another service tier"
RESERVED = "reserved throughput"
LONG_PROMPTS = "only for long prompts"
KEPT_LONGER = "only for caches that are kept for longer"
SOME_AMOUNTS = "only for some amounts"
NOT_TEXT = "not by the token of text"
UNKNOWN_MODEL = "the model's name is not known"
NOT_UNDERSTOOD = "is not understood"


def ruled_out(words: Set[str], table: Iterable[tuple[Set[str], str]]) -> str:
    """The first reason of the table that has one of these words; "" if none has."""
    return next((why for marks, why in table if words & marks), "")
