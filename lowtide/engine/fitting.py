"""Whether the work at hand is what a run was planned for: job files are edited while batches are out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lowtide.errors import StalePlan
from lowtide.plan import RunPlan, Work


@dataclass(frozen=True, slots=True)
class Fit:
    """A run's plan and the `places` where its batches are still out, held against the work at hand."""

    plan: RunPlan
    places: Collection[str]
    work: Work

    @property
    def differs(self) -> bool:
        """Whether the work asks other questions, or asks them elsewhere, than the run was planned to."""
        plan, work = self.plan, self.work
        planned = [(op.name, op.version) for op in plan.operations]
        asked = [(op.name, op.version) for op in work.operations]
        if planned != asked or (plan.backend, plan.model) != (work.backend.name, work.backend.model):
            return True
        return plan.parameters != dict(work.backend.parameters)

    @property
    def moved(self) -> bool:
        """Whether batches that are still out lie where the backend at hand does not look."""
        return not set(self.places) <= set(self.work.backend.places)

    def check(self) -> None:
        """Raise StalePlan if the work is not what the run was planned for."""
        self.check_places()
        if self.differs:
            raise StalePlan(
                f"run {self.plan.run_id} was planned for other operations, or another backend, model or parameters, "
                "than the job file names now; put the job file back to go on with it, or run the job again to begin a "
                "new run"
            )

    def check_places(self) -> None:
        """Raise StalePlan if batches that are still out lie where the backend at hand does not look."""
        if self.moved:
            raise StalePlan(
                f"run {self.plan.run_id} has batches at {', '.join(sorted(self.places))}, and the job file names "
                f"{', '.join(self.work.backend.places) or 'no such place'} now: they cannot be seen from there; put "
                "the job file back until they are collected"
            )
