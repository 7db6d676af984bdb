"""What the API, the SDK and the network say, in this project's own errors.

The SDK's exceptions hold the request, its key included, and may repeat what was sent: of their text only the provider's
code and its message, cut short and without keys, are passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx2
import openai

from lowtide.connectors.backends.openai_batch.account import Account
from lowtide.connectors.backends.openai_batch.batches import is_quota
from lowtide.errors import LowtideError, QuotaFull, SubmitUnknown, Terminal, Transient

FAILURES = (openai.APIError, httpx2.HTTPError, httpx2.StreamError)

_SAID = 200
_PASSING = {408, 409, 425, 429}
# Raised before the first byte of a request has left.
_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
_SCOPES = re.compile(r"Missing scopes: [a-z_., ]+")
_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached"}


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failed call. `status` is 0 where there was no answer; `sent` is False where nothing left."""

    status: int
    codes: tuple[str, ...]
    said: str
    sent: bool = True
    network: str = ""

    @property
    def passing(self) -> bool:
        """Whether the same call may work later."""
        return not self.out_of_credit and (bool(self.network) or self.status in _PASSING or self.status >= 500)

    @property
    def missing(self) -> bool:
        """Whether what was asked for is not there."""
        return self.status == 404

    @property
    def quota(self) -> bool:
        """Whether the quota of enqueued tokens is full."""
        return self.status in {400, 403, 429} and any(is_quota(code.lower(), self.said) for code in (*self.codes, ""))

    @property
    def out_of_credit(self) -> bool:
        """Whether the account must be paid before anything is accepted again."""
        return any(code.lower() in _NO_CREDIT for code in self.codes)

    def __str__(self) -> str:
        if self.network:
            return self.network
        # A refusal of credentials may repeat them; the scopes that it misses are worth knowing.
        scopes = _SCOPES.search(self.said)
        said = self.said if self.status not in {401, 403} else scopes[0] if scopes else ""
        code = f", {self.codes[0]}" if self.codes and self.codes[0] != str(self.status) else ""
        return f"HTTP {self.status}{code}" + (f": {said}" if said else "")


def explain(error: Exception, secret: str = "") -> Failure:
    """What is known of a failure that the SDK or its HTTP client raised."""
    if isinstance(error, openai.APIStatusError):
        codes, said = _read(error.body)
        said = " ".join(said.split())
        return Failure(error.status_code, codes, (said.replace(secret, "***") if secret else said)[:_SAID])
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    name = type(cause or error).__name__
    if isinstance(error, openai.APIConnectionError | httpx2.HTTPError | httpx2.StreamError):
        sent = not isinstance(cause, _NOT_SENT)
        # Why nobody could be reached: a refused connection, an unknown host, a certificate.
        why = f": {' '.join(str(cause).split())[:_SAID]}" if isinstance(cause, httpx2.ConnectError) else ""
        return Failure(0, (), "", sent, f"no answer ({name}{why})")
    return Failure(0, (), "", True, f"an answer that cannot be read ({name})")


@contextmanager
def creating(account: Account) -> Iterator[None]:
    """Errors of the create call, by what they say of its outcome: only what is known to be refused is an error of
    another kind than SubmitUnknown.
    """
    try:
        yield
    except FAILURES as error:
        failure = explain(error, account.secret)
        raise _of_create(failure, account) from None


@contextmanager
def calling(account: Account, what: str, *, private: bool = False) -> Iterator[None]:
    """Errors of a call that may be repeated: Terminal where credentials are refused or the call is wrong.

    Where the call is `private`, it carries documents, and the provider's message might repeat them.
    """
    try:
        yield
    except FAILURES as error:
        failure = explain(error, account.secret)
        if private and failure.status not in {401, 403}:
            failure = replace(failure, said="")
        told = f"cannot {what} at {account.address}"
        if failure.passing:
            raise Transient(f"{told} now: {failure}") from None
        raise Terminal(f"{told}: {failure} ({advice(failure, account)})") from None


@contextmanager
def looking(account: Account, what: str) -> Iterator[None]:
    """Errors of looking at something that is, or was, there: Terminal only where credentials are refused."""
    try:
        yield
    except FAILURES as error:
        failure = explain(error, account.secret)
        if failure.status in {401, 403}:
            raise Terminal(f"cannot {what} at {account.address}: {failure} ({advice(failure, account)})") from None
        raise Transient(f"cannot {what} at {account.address} now: {failure}") from None


def advice(failure: Failure, account: Account) -> str:
    """What to do about a failure that waiting does not mend."""
    if failure.out_of_credit:
        return "the account has no credit left: add some, or raise its limit"
    if failure.status == 401:
        return f"the credentials were not accepted: check {account.credentials}"
    if failure.status == 403:
        return f"{account.credentials} lacks a permission, or this network is not allowed in: {account.permission}"
    if failure.status == 404:
        return "there is no such model, deployment or API here: check their names, and the endpoint"
    if 300 <= failure.status < 400:
        return "the address leads elsewhere: write the final one"
    return "see docs/backends for what each error means"


def _of_create(failure: Failure, account: Account) -> LowtideError:
    told = f"cannot create a batch at {account.address}"
    if failure.network:
        if failure.sent:
            return SubmitUnknown(f"a batch may have been created at {account.address}: {failure}")
        return Transient(f"{told} now: {failure}")
    if failure.out_of_credit:
        return Terminal(f"{told}: {failure} ({advice(failure, account)})")
    if failure.quota or failure.status == 429:
        return QuotaFull(f"{account.address} has no room for another batch: {failure}")
    if failure.status >= 500 or failure.status == 408:
        return SubmitUnknown(f"a batch may have been created at {account.address}: {failure}")
    if failure.status in {409, 425}:
        return Transient(f"{told} now: {failure}")
    return Terminal(f"{told}: {failure} ({advice(failure, account)})")


def _read(body: object) -> tuple[tuple[str, ...], str]:
    """The codes in an error's body, those inside it included, and its message."""
    if not isinstance(body, Mapping):
        return (), ""
    error = body.get("error", body)
    if not isinstance(error, Mapping):
        return (), error if isinstance(error, str) else ""
    inner = [error.get(name) for name in ("innererror", "inner_error", "details")]
    deeper = [entry for part in inner for entry in (part if isinstance(part, list) else [part])]
    found = [entry.get("code") for entry in (error, *deeper) if isinstance(entry, Mapping)]
    found.append(error.get("type"))
    codes = tuple(dict.fromkeys(str(code) for code in found if isinstance(code, str | int)))
    message = error.get("message")
    return codes, message if isinstance(message, str) else ""
