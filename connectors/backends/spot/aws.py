"""The AWS services that spot workers need, found and configured as the AWS tools do it, and what their errors mean."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from botocore.exceptions import ClientError
from botocore.exceptions import ConnectionError as NoConnection

from lowtide.connectors.backends.aws.account import AwsAccount, Client, find_account
from lowtide.connectors.backends.aws.failures import never_sent, reported, said, without_password
from lowtide.errors import ConfigError, LowtideError, QuotaFull, SubmitUnknown, Terminal, Transient

T = TypeVar("T", bound=msgspec.Struct)

FIELD = "backends.spot"
_READ_SECONDS = 30
# A job that is submitted twice is paid twice, so botocore must not repeat it.
_ONCE: Mapping[str, Any] = {"read_timeout": 60, "retries": {"total_max_attempts": 1, "mode": "standard"}}
_REPEATED: Mapping[str, Any] = {
    "read_timeout": _READ_SECONDS,
    "retries": {"total_max_attempts": 4, "mode": "standard"},
}


@dataclass(frozen=True)
class Aws:
    """One account and region. Clients are made when they are first asked for. May be used by threads."""

    account: AwsAccount
    _clients: dict[tuple[str, bool], Client] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def client(self, service: str, *, once: bool = False) -> Client:
        """A client of `service`; one whose calls are sent `once`, for what must not be done twice."""
        with self._lock:
            if (service, once) not in self._clients:
                self._clients[service, once] = self.account.client(service, _ONCE if once else _REPEATED)
            return self._clients[service, once]

    @property
    def region(self) -> str:
        """The region that workers run in."""
        return self.account.region


def connect(region: str | None, environ: Mapping[str, str] | None = None) -> Aws:
    """Find credentials and region; no service is called yet. Raises ConfigError where there are none."""
    return Aws(find_account("spot", FIELD, region, environ))


def read(answer: Mapping[str, object], shape: type[T], what: str) -> T:
    """A response in its shape. Raises Transient that names `what` could not be read."""
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise Transient(f"AWS answered, and {what} cannot be read: {error}") from error


def not_submitted(error: Exception, queue: str, definition: str) -> LowtideError:
    """The error of a SubmitJob call that failed: whether something was accepted is in its type.

    ClientException comes with HTTP 4xx, ServerException with 5xx (service model `batch` of boto3 1.43).
    """
    if isinstance(error, ClientError):
        answer = said(error)
        if answer.throttled:
            return QuotaFull(f"AWS Batch takes no more jobs now: {answer}")
        # 408 and 5xx may come from something between us and a service that has accepted the call.
        if answer.status >= 500 or answer.status in {0, 408}:
            return SubmitUnknown(f"AWS Batch did not say whether it has taken the job: {answer}")
        return _refused(error, queue, definition)
    if never_sent(error):
        if isinstance(error, NoConnection):
            return Transient(f"AWS Batch cannot be reached now: {without_password(error)}")
        return _refused(error, queue, definition)
    return SubmitUnknown(f"the connection to AWS Batch broke before it answered: {type(error).__name__}")


def _refused(error: Exception, queue: str, definition: str) -> LowtideError:
    permission = "batch:SubmitJob on the queue and the job definition"
    found = reported(error, f"submit a job of {definition!r} to {queue!r}", permission)
    return found if isinstance(found, ConfigError) else Terminal(f"{found} (see docs/backends/spot-aws.md)")
