"""The engine: carries out what `lowtide.decisions` decides, one idempotent pass at a time."""

from __future__ import annotations

from lowtide.engine.ending import end_run
from lowtide.engine.opening import apply_plan, find_run, is_published, open_run, plan_run, with_chores
from lowtide.engine.progress import Progress
from lowtide.engine.run import Run, drive
from lowtide.engine.superseding import wind_down

__all__ = [
    "Progress",
    "Run",
    "apply_plan",
    "drive",
    "end_run",
    "find_run",
    "is_published",
    "open_run",
    "plan_run",
    "wind_down",
    "with_chores",
]
