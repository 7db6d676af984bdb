"""What a cloud's object store and the libraries that talk to it say, in this project's own errors.

obstore keeps HTTP status, the service's error code and the kind of network failure in its messages only, in fixed forms
(https://docs.rs/object_store/latest/src/object_store/client/retry.rs.html); they are cut out here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from lowtide.errors import LowtideError, NotFound, StoreError, Transient

Doing = Literal["list", "read", "write", "delete"]

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_SAID = re.compile(r"<Message>([^<\r\n]{1,300})")
_NETWORK = re.compile(r"HttpError \{\s*kind: (\w+)")
_REDIRECT = "Received redirect without LOCATION"


@dataclass(frozen=True, slots=True)
class Service:
    """What one service calls the failures that are told apart, by its own list of error codes.

    `passing`: the same request may work later. `conflict`: a condition did not hold, or another writer was in the way.
    `credentials`: whoever asks was not recognized. `nowhere`: the bucket is not there. `vanished`: an upload is gone,
    completed by a request whose answer was lost, or dropped. `advice` says what to do about a code, and `otherwise`
    about the codes that are not in it; `permission` what must be allowed.
    """

    passing: frozenset[str]
    passing_statuses: frozenset[int]
    conflict: frozenset[str]
    conflict_statuses: frozenset[int]
    credentials: frozenset[str]
    nowhere: frozenset[str]
    vanished: frozenset[str]
    permission: Mapping[Doing, str]
    advice: Mapping[str, str]
    no_bucket: str
    otherwise: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failed request. `status` is 0 without an answer; `code` is the service's word, or ""."""

    service: Service
    status: int
    code: str
    said: str
    network: str = ""

    @property
    def passing(self) -> bool:
        """Whether the same request may work later. 501 will not: the store does not know how."""
        if self.network or self.code in self.service.passing or self.status in self.service.passing_statuses:
            return True
        return self.status >= 500 and self.status != 501

    @property
    def conflict(self) -> bool:
        """Whether a condition of the request did not hold, or another writer was in the way."""
        return self.status in self.service.conflict_statuses or self.code in self.service.conflict

    @property
    def missing(self) -> bool:
        """Whether the object is not there. A bucket that is not there is another matter."""
        return self.status == 404 and self.code not in self.service.nowhere | self.service.vanished

    @property
    def vanished(self) -> bool:
        """Whether an upload is gone: completed by a request whose answer was lost, or dropped."""
        return self.code in self.service.vanished

    @property
    def wholesale(self) -> bool:
        """Whether every other object would fail in the same way."""
        return self.passing or self.status == 401 or self.code in self.service.credentials | self.service.nowhere


class Failures:
    """The failures of one service: `raised` are the exceptions that its libraries raise."""

    raised: tuple[type[Exception], ...] = (BaseError, FileNotFoundError)

    def __init__(self, service: Service) -> None:
        self._service = service

    def explain(self, error: Exception) -> Failure:
        """What is known of a failure that obstore raised."""
        text = str(error)
        status = int(found[1]) if (found := _STATUS.search(text)) else _status_of(error)
        code = found[1] if (found := _CODE.search(text)) else ""
        said = found[1] if (found := _SAID.search(text)) else ""
        network = found[1] if not status and (found := _NETWORK.search(text)) else ""
        return Failure(self._service, status, "PermanentRedirect" if _REDIRECT in text else code, said, network)

    def cause(self, error: Exception) -> Exception | None:
        """What may be shown as the reason of our own error."""
        return error

    def reported(self, error: Exception, uri: str, doing: Doing) -> LowtideError:
        """The error to raise instead: it names the object, says what was found, and what to do."""
        failure = self.explain(error)
        found = (
            failure.code or failure.network or (f"HTTP {failure.status}" if failure.status else type(error).__name__)
        )
        told = f"{found}: {failure.said}" if failure.said else found
        if doing == "read" and failure.missing:
            return NotFound(f"there is no object {uri!r}", uri=uri)
        if failure.passing:
            return Transient(f"cannot {doing} {uri!r} now: {told}")
        return StoreError(f"cannot {doing} {uri!r}: {told} ({self._advice(failure, doing)})", uri=uri)

    @contextmanager
    def translated(self, uri: str, doing: Doing) -> Iterator[None]:
        """Turn what the libraries raise about this object into NotFound, Transient or StoreError."""
        try:
            yield
        except self.raised as error:
            raise self.reported(error, uri, doing) from self.cause(error)

    def _advice(self, failure: Failure, doing: Doing) -> str:
        if failure.code in self._service.nowhere or (failure.status == 404 and doing != "read"):
            return self._service.no_bucket
        if failure.code in self._service.advice:
            return self._service.advice[failure.code]
        if failure.code in self._service.credentials or failure.status == 401:
            return "the credentials were not accepted: check the keys, their expiry, and this machine's clock"
        by_status = {
            403: f"allow {self._service.permission[doing]}",
            501: "this store does not know how",
            412: "it was changed meanwhile: try again",
        }
        return by_status.get(failure.status, self._service.otherwise)


_STATUS_OF: dict[type[Exception], int] = {
    FileNotFoundError: 404,
    AlreadyExistsError: 409,
    PreconditionError: 412,
    PermissionDeniedError: 403,
    UnauthenticatedError: 401,
}


def _status_of(error: Exception) -> int:
    return next((status for kind, status in _STATUS_OF.items() if isinstance(error, kind)), 0)
