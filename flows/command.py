"""`lowtide run` through Prefect: quiet, with the user's own server if there is one, and never at Prefect's mercy."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lowtide import engine
from lowtide.engine.progress import Listener
from lowtide.engine.run import Run
from lowtide.flows.failures import left_to_the_command

_QUIET = {
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "DO_NOT_TRACK": "1",
}
_LEAVE_SECONDS = 10.0
_INTERRUPTED = 130


def run_through_prefect(job: str, window: str, *, wait: bool, use_cache: bool, listen: Listener, fallback: Run) -> None:
    """Run the job as a flow; as often as it takes if `wait`. Goes on without Prefect if Prefect fails.

    Raises what the run itself raises, and KeyboardInterrupt for SIGINT and SIGTERM, whatever Prefect makes of them.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    listen(fallback.progress("starting Prefect"))
    from lowtide.errors import LowtideError
    from lowtide.flows.run import job_flow

    poll = fallback.context.work.poll_seconds
    with _interrupts() as interrupted, left_to_the_command():
        try:
            flow = job_flow(listen)
            while True:
                flow(job, window, False, 1800.0 if wait else 0.0, fallback.plan.run_id, not use_cache, False)
                fallback.refresh()
                if not wait or fallback.decide().done:
                    return
                time.sleep(poll)
        except LowtideError:
            raise
        except Exception as error:
            if interrupted.is_set() or _signalled(error):
                # Its server has heard the signal as well, and was the first to go.
                _leave_soon()
                raise KeyboardInterrupt from error
            # The journal is the truth: whatever Prefect says, the engine can go on.
            reason = str(error).partition("\n")[0][:200]
            print(f"Prefect failed ({type(error).__name__}: {reason}); going on without it", file=sys.stderr)
            engine.drive(fallback, listen, poll=poll, until=None if wait else 0.0)


def _signalled(error: BaseException | None) -> bool:
    """Whether an error came up while a signal was being followed: inside a flow, Prefect listens for SIGTERM itself."""
    from prefect.exceptions import ExternalSignal

    while error is not None:
        if isinstance(error, KeyboardInterrupt | ExternalSignal):
            return True
        error = error.__cause__ or error.__context__
    return False


def _leave_soon() -> None:
    leaving = threading.Timer(_LEAVE_SECONDS, os._exit, (_INTERRUPTED,))
    leaving.daemon = True
    leaving.start()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set once somebody wants to stop. Prefect's threads get some seconds then; nothing that matters is theirs."""
    interrupted = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if not interrupted.is_set():
            interrupted.set()
            _leave_soon()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
