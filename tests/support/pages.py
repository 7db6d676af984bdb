"""What a person does on Prefect's pages."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType

_PATIENCE = 120.0


def answer(flow_run: UUID, *, approve: bool) -> None:
    """Answer a flow run that asks, and once more as long as its page still asks: a form takes a moment to be there."""
    until = time.monotonic() + _PATIENCE
    with get_client(sync_client=True) as client:
        while client.read_flow_run(flow_run).state_type is StateType.PAUSED:
            assert time.monotonic() < until, "its page still asks"
            client.resume_flow_run(flow_run, run_input={"approve": approve})
            time.sleep(0.5)
