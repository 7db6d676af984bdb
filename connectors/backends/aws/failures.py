"""What AWS says of a failed call, in this project's own errors."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
)
from botocore.exceptions import (
    ConnectionError as NoConnection,
)
from botocore.parsers import ResponseParserError

from lowtide.errors import ConfigError, LowtideError, Terminal, Transient

# A response that cannot be read is no BotoCoreError.
FAILURES = (BotoCoreError, ClientError, ResponseParserError)

NOT_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)
"""No connection was made, so nothing can have been accepted."""

WITHOUT_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
THROTTLED = frozenset({
    "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown",
    "RequestThrottled", "RequestThrottledException",
})  # fmt: skip
_CREDENTIALS = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
    "InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "MissingAuthenticationToken",
    "RequestExpired",
})  # fmt: skip
_LONGEST_MESSAGE = 500
# Greedy: a password may hold what an address may not.
_USER = re.compile(r"//[^\s\"]*@")


@dataclass(frozen=True, slots=True)
class Said:
    """An answer that is an error: AWS's own word for it, the HTTP status, and the message."""

    code: str
    status: int
    message: str

    @property
    def throttled(self) -> bool:
        """Whether the call was turned away for its number, and nothing was done."""
        return self.status == 429 or self.code in THROTTLED

    def __str__(self) -> str:
        return f"{self.code or f'HTTP {self.status}'}: {self.message}" if self.message else self.code


def said(error: ClientError) -> Said:
    """What an error response holds."""
    answer = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return Said(answer.get("Code", ""), status, answer.get("Message", "")[:_LONGEST_MESSAGE])


def code_of(error: Exception) -> str:
    """AWS's own word for the error; "" where AWS has said nothing."""
    return said(error).code if isinstance(error, ClientError) else ""


def never_sent(error: Exception) -> bool:
    """Whether the call certainly has not left this machine: no connection, no trust in the other side, no keys."""
    if isinstance(error, (*NOT_SENT, *WITHOUT_CREDENTIALS, ParamValidationError)):
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def without_password(error: Exception) -> str:
    """The error's text, without the user and the password that may stand in an address that it names."""
    return _USER.sub("//", str(error))


def reported(error: Exception, doing: str, permission: str) -> LowtideError:
    """The error of a call that may be repeated: Transient where that is worth it, Terminal where it is not."""
    if isinstance(error, ClientError):
        answer = said(error)
        if answer.throttled or answer.status >= 500 or answer.status in {0, 408}:
            return Transient(f"cannot {doing} now: {answer}")
        return Terminal(f"cannot {doing}: {answer}{advice(answer, permission)}")
    if isinstance(error, WITHOUT_CREDENTIALS):
        return ConfigError(f"there are no usable AWS credentials: {error}")
    if isinstance(error, (HTTPClientError, NoConnection, ResponseParserError)):
        return Transient(f"cannot {doing} now: {type(error).__name__}")
    return Terminal(f"cannot {doing}: {without_password(error)}")


@contextmanager
def translated(doing: str, permission: str) -> Iterator[None]:
    """Turn what boto3 raises into Transient, Terminal or ConfigError."""
    try:
        yield
    except FAILURES as error:
        raise reported(error, doing, permission) from error


def advice(answer: Said, permission: str) -> str:
    """What to do about it, in parentheses; "" where that is not known."""
    if answer.code in _CREDENTIALS:
        return " (check the keys, their expiry, and this machine's clock)"
    if answer.status == 403 or answer.code in {"AccessDeniedException", "AccessDenied"}:
        return f" (allow {permission})"
    return ""
