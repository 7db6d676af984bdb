"""How many tokens a run will need, before a cent is spent, with an error bar."""

from __future__ import annotations

from lowtide.estimating.corpus import Corpus
from lowtide.estimating.estimates import Estimate, estimate
from lowtide.estimating.history import NO_HISTORY, History, read_history

__all__ = ["NO_HISTORY", "Corpus", "Estimate", "History", "estimate", "read_history"]
