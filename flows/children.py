"""The flow runs of a backfill's windows: one of the job's deployment for each, and another if that died."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from lowtide.errors import ConfigError, LowtideError, Terminal, Transient

TRIES = 3
"""Flow runs that one parent starts for a window: one that failed or crashed is followed by another."""

_DIED = (StateType.FAILED, StateType.CRASHED)


@dataclass(frozen=True)
class Children:
    """Flow runs of `deployment`, for the windows of the backfill of that id. `job` is the job file's path."""

    deployment: str
    job: str
    backfill: str
    _begun: Counter[str] = field(default_factory=Counter)

    @property
    def tag(self) -> str:
        """What all of them are tagged with."""
        return f"backfill-{self.backfill}"

    def check(self) -> None:
        """Raise ConfigError if there is no such deployment."""
        try:
            with get_client(sync_client=True) as client:
                client.read_deployment_by_name(self.deployment)
        except ObjectNotFound as error:
            raise ConfigError(
                f"run_due: found no deployment {self.deployment!r}; expected the job's, which `lowtide deploy` makes"
            ) from error

    def see_to(self, window: str, run_id: str) -> None:
        """Let a flow run begin with the window's run, unless one has.

        What goes on behind its first pass is the tick's. Raises Transient if Prefect does not answer, and Terminal if
        one after the other has died.
        """
        try:
            runs = self._runs_of(window)
            last = max(runs, default=0)
            if last and runs[last].state_type not in _DIED:
                return
            if self._begun[window] < TRIES:
                self._start(window, run_id, last + 1)
                self._begun[window] += 1
                return
        except LowtideError:
            raise
        except Exception as error:
            raise Transient(f"window {window}: Prefect did not answer: {type(error).__name__}") from error
        raise Terminal(
            f"{TRIES} flow runs of {self.deployment!r} have failed or crashed; their logs say why. "
            "The run is open, and the tick tries to go on with it"
        )

    def _runs_of(self, window: str) -> dict[int, FlowRun]:
        """The flow runs of a window by their numbers, from 1 on."""
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[self.tag, f"window-{window}"]))
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(flow_run_filter=tagged, limit=200)
        return {int((run.idempotency_key or "").partition("#")[2] or 1): run for run in found}

    def _start(self, window: str, run_id: str, number: int) -> None:
        key = f"{self.backfill}-{window}"
        run_deployment(
            self.deployment,
            parameters={"job": self.job, "window": window, "run_id": run_id},
            timeout=0,
            tags=[self.tag, f"window-{window}"],
            idempotency_key=key if number == 1 else f"{key}#{number}",
        )
