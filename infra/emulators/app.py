"""What the services share: clock, bill, faults, the log of calls, and what the process was started with."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lowtide.emulators.answers import BYTES, Tokens
from lowtide.emulators.bill import Bill
from lowtide.emulators.clock import Clock
from lowtide.emulators.faults import Fault, Faults
from lowtide.emulators.web import Hang, Reset, Response, Route

_HANG_SECONDS = 30.0


class Calls:
    """Every call that was received, counted, and a log of those that create something. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._creates: list[Mapping[str, object]] = []

    def count(self, service: str, operation: str) -> None:
        """One more call, whatever becomes of it."""
        with self._lock:
            self._counts[service, operation] += 1

    def created(self, service: str, operation: str, **facts: object) -> None:
        """Something was committed: a batch or a file, with its id and name."""
        with self._lock:
            self._creates.append({"service": service, "operation": operation, **facts})

    def summary(self) -> Mapping[str, object]:
        """What `GET /_emulator/calls` answers: `counts` by service and operation, `created` in order."""
        with self._lock:
            counts: dict[str, dict[str, int]] = {}
            for (service, operation), times in sorted(self._counts.items()):
                counts.setdefault(service, {})[operation] = times
            return {"counts": counts, "created": list(self._creates)}

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._counts.clear()
            self._creates.clear()


@dataclass
class App:
    """One running emulator. `folder` is a temporary one for the services' files; each keeps to its own part of it.

    `s3_url` is where S3 is (None: as the environment says), `blob` a connection string or URL of Blob storage.
    `seed` goes into every answer, `tokens` says how those on the bill are counted. `stopping` is set when the process
    ends.
    """

    folder: Path
    clock: Clock
    bill: Bill
    faults: Faults
    calls: Calls = field(default_factory=Calls)
    seed: int = 0
    tokens: Tokens = BYTES
    s3_url: str | None = None
    blob: str | None = None
    stopping: threading.Event = field(default_factory=threading.Event)


class Service(Protocol):
    """One provider's API. `lowtide.emulators.<name>.service.service(app)` makes it."""

    @property
    def name(self) -> str:
        """Its key in the settings: `bedrock` or `openai`."""
        ...

    def routes(self) -> Sequence[Route]:
        """What it answers. The first route that fits is taken."""
        ...

    def settings(self) -> Mapping[str, object]:
        """Every setting that can be changed, as JSON."""
        ...

    def configure(self, settings: Mapping[str, object]) -> None:
        """Change these settings and leave the others. Raises ValueError with the reason."""
        ...

    def reset(self) -> None:
        """Forget every batch and file, end what is running, and go back to the first settings."""
        ...


def guarded(
    app: App,
    point: str,
    work: Callable[[], Response],
    refuse: Callable[[Fault], Response],
    other: Callable[[Fault], Response] | None = None,
    **facts: object,
) -> Response:
    """Do `work`, with the fault that the plan has for this call, if any.

    `refuse` writes an error in the provider's own form, by the fault's `do`: `error_before` and `error_after` (500),
    `throttle` (429), `not_found` (404), `quota`. `other` does the work under a fault that is not of the call itself
    (`skew`, `stop_late`, `refuse`, ...); without it such a fault changes nothing. Raises Reset, Hang.
    """
    fault = app.faults.take(point, **facts)
    if fault is None:
        return work()
    seconds = fault.seconds or _HANG_SECONDS
    match fault.do:
        case "error_before" | "throttle" | "not_found" | "quota":
            return refuse(fault)
        case "reset_before":
            raise Reset
        case "timeout_before":
            raise Hang(seconds)
        case "error_after":
            done = work()
            return refuse(fault) if done.status < 400 else done
        case "reset_after":
            work()
            raise Reset
        case "timeout_after":
            work()
            raise Hang(seconds)
    return work() if other is None else other(fault)
