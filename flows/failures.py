"""What Prefect's logs say of an error that Lowtide raises on purpose: Prefect's words, and what to do, in a line.

Whatever else goes wrong is a bug, of ours or of others, and keeps its traceback. States and retries are Prefect's own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lowtide.errors import LowtideError, OurBug

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")
"""Where Prefect tells how a run ended, in its own process and in a worker's."""

_ON_PURPOSE = "lowtide_error"


def say_plainly() -> None:
    """Have Prefect log our errors without where in the code they came up, in this process, from now on.

    Each flow begins with it, since a worker's process imports the flow and nothing else. Calls no Prefect.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_plain)


@contextmanager
def left_to_the_command() -> Iterator[None]:
    """Keep those errors off the console meanwhile: the command ends with the same words. Prefect's server has them."""
    quiet = _SaidElsewhere()
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(quiet)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(quiet)


def _plain(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, LowtideError) and not isinstance(error, OurBug):
        words, plain = record.getMessage(), f"{type(error).__name__}: {error}"
        said = words.replace(repr(error), plain)
        record.msg, record.args = said if plain in said else f"{said}: {plain}", ()
        record.exc_info = record.exc_text = None
        setattr(record, _ON_PURPOSE, True)
    return True


class _SaidElsewhere(logging.Filter):
    """Drops errors that were raised on purpose, and what is told of the end of a task that one has failed."""

    def __init__(self) -> None:
        super().__init__()
        self._failed: set[object] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        task = getattr(record, "task_run_id", None)
        if getattr(record, _ON_PURPOSE, False):
            self._failed.add(task)
            return False
        return task is None or task not in self._failed
