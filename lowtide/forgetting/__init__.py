"""Taking a person's documents out of a root: requests, answers, rows, results and what the cache knows of them."""

from __future__ import annotations

from lowtide.forgetting.forget import Forgetting, NotForgotten
from lowtide.forgetting.target import Target
from lowtide.forgetting.touched import KINDS, Touched

__all__ = ["KINDS", "Forgetting", "NotForgotten", "Target", "Touched"]
