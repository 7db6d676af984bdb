"""What the work at a shard needs from the engine and from the machine: each is an interface that tests can fill too."""

from __future__ import annotations

from typing import Protocol


class EngineDown(Exception):
    """The engine died, hangs or refuses connections: what was asked is not answered, and may be asked again."""


class EngineFailed(Exception):
    """The engine cannot be started or ended, or refuses whatever it is asked; the message says why."""


class Desk(Protocol):
    """Where requests are asked, one line of OpenAI's batch input each."""

    @property
    def room(self) -> int:
        """How many requests may be in flight now; it changes with what the engine is seen to bear."""
        ...

    async def ask(self, line: bytes) -> bytes:
        """The line of OpenAI's batch output for it, without a newline.

        What one request does never raises: a failed one has an `error` in its line. Raises EngineDown, and then the
        request is not answered.
        """
        ...


class Notices(Protocol):
    """Word that this worker has to go."""

    async def wait(self) -> str:
        """Wait for the first notice and give its reason."""
        ...
