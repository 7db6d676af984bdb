"""How rows say that a budget kept them from being asked, and what all rows that met the same cap have in common."""

from __future__ import annotations

import re

UNASKED = r"^(?:line [0-9]+: )?budget(?:$|: )"
"""How the reason of such a row begins; the line is that of a document in a file of many."""

FIGURES = r" (?:has \S+(?: USD)? left|is used up)\b.*$"
"""What differs from shard to shard though the cap is the same: what it had left, and what the shard needed."""

_UNASKED, _FIGURES = re.compile(UNASKED), re.compile(FIGURES, re.DOTALL)


def by_cap(reason: str) -> str:
    """The reason without its figures, if a cap is what it is about."""
    return _FIGURES.sub("", reason) if _UNASKED.match(reason) else reason
