"""`lowtide run` through Prefect: quiet, with the user's own server if there is one, and never at Prefect's mercy."""

from __future__ import annotations

import os
import sys
import time

from lowtide import engine
from lowtide.engine.run import Listener, Run

_QUIET = {
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "DO_NOT_TRACK": "1",
}


def run_through_prefect(job: str, window: str, *, wait: bool, listen: Listener, fallback: Run) -> None:
    """Run the job as a flow; as often as it takes if `wait`. Goes on without Prefect if Prefect fails.

    Raises what the run itself raises.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    listen(fallback.progress("starting Prefect"))
    from lowtide.errors import LowtideError
    from lowtide.flows.run import job_flow

    poll = fallback.context.work.poll_seconds
    try:
        flow = job_flow(listen)
        while True:
            flow(job, window, False, 1800.0 if wait else 0.0, fallback.plan.run_id)
            fallback.refresh()
            if not wait or fallback.decide().done:
                return
            time.sleep(poll)
    except LowtideError:
        raise
    except Exception as error:
        # The journal is the truth: whatever Prefect says, the engine can go on.
        reason = str(error).partition("\n")[0][:200]
        print(f"Prefect failed ({type(error).__name__}: {reason}); going on without it", file=sys.stderr)
        engine.drive(fallback, listen, poll=poll, until=None if wait else 0.0)
