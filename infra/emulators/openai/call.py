"""One call to the API of one account: who asks, what for, and how the faults of the plan meet it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lowtide.emulators.app import App, guarded
from lowtide.emulators.faults import Fault
from lowtide.emulators.openai.errors import (
    RowError,
    broken,
    not_found,
    over_quota,
    refusal,
    throttled,
)
from lowtide.emulators.openai.rules import Mode
from lowtide.emulators.openai.settings import Settings
from lowtide.emulators.openai.state import Account
from lowtide.emulators.web import Refused, Request, Response

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Call:
    """A call that has been let in. `lock` guards everything that the accounts hold."""

    app: App
    account: Account
    settings: Settings
    request: Request
    lock: threading.RLock

    @property
    def mode(self) -> Mode:
        """The provider that is asked."""
        return self.account.mode

    @property
    def now(self) -> float:
        """The emulated time."""
        return self.app.clock.now()

    def json(self) -> Mapping[str, Any]:
        """The body, a JSON object. Raises Refused."""
        try:
            body = self.request.json()
        except ValueError as error:
            raise self.bad("We could not parse the JSON body of your request.") from error
        if not isinstance(body, dict):
            raise self.bad("The body of your request is no JSON object.")
        return body

    def bad(self, message: str, param: str | None = None, code: str | None = None) -> Refused:
        """400 with this message."""
        return refusal(RowError(400, message, code=code, param=param))

    def guarded(
        self,
        point: str,
        work: Callable[[], Response],
        other: Callable[[Fault], Response] | None = None,
        **facts: object,
    ) -> Response:
        """Do the work with the fault that the plan has for this call. Raises Reset, Hang, Refused."""
        return guarded(self.app, point, work, self.refused, other, **self.facts(), **facts)

    def facts(self) -> dict[str, object]:
        """What every occasion of this call has in common."""
        return {"service": self.mode.name, "account": self.account.key}

    def refused(self, fault: Fault) -> Response:
        """The fault as this provider's error."""
        match fault.do:
            case "throttle":
                return throttled(self.mode, fault.seconds or _RETRY_SECONDS).response
            case "not_found":
                return not_found(self.mode, "object", "").response
            case "quota":
                code, message = over_quota(self.mode, "the model", 0)
                return refusal(RowError(400, message, code=code)).response
        return broken().response

    def page(self, items: list[Mapping[str, object]], most: int, default: int) -> Response:
        """One page of a list that is already in order: `after` and `limit` are the caller's. Raises Refused."""
        given = self.request.query.get("limit")
        limit = int(given) if given is not None and given.isdecimal() else default
        if not 1 <= limit <= most or (given is not None and not given.isdecimal()):
            raise self.bad(f"Invalid 'limit': expected an integer from 1 to {most}.", "limit")
        after = self.request.query.get("after")
        start = 0
        if after is not None:
            found = next((number for number, item in enumerate(items) if item["id"] == after), None)
            if found is None:
                raise self.bad(f"Invalid 'after': no object with id '{after}'.", "after")
            start = found + 1
        page = items[start : start + limit]
        return Response.of(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": start + limit < len(items),
            }
        )
