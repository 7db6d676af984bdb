"""The engine: carries out what `lowtide.decisions` decides, one idempotent pass at a time."""

from __future__ import annotations

from lowtide.engine.opening import find_run, is_published, open_run, plan_run
from lowtide.engine.run import Progress, Run, drive

__all__ = ["Progress", "Run", "drive", "find_run", "is_published", "open_run", "plan_run"]
