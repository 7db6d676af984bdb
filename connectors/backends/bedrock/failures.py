"""What AWS says of a failed call, in this project's own errors.

The exceptions of each operation are those of the SDK's service model (boto3 1.43, `bedrock` and `bedrock-runtime`):
ServiceQuotaExceeded and Conflict come with HTTP 400, Throttling with 429, InternalServer with 500.
"""

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

from lowtide.errors import ConfigError, LowtideError, QuotaFull, SubmitUnknown, Terminal, Transient

# A response that cannot be read is no BotoCoreError.
FAILURES = (BotoCoreError, ClientError, ResponseParserError)

NOT_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)
"""No connection was made, so nothing can have been accepted."""

_WITHOUT_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
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
_ADVICE = "see docs/backends/bedrock.md for what a job needs"
_MODELS = (
    "choose a model that takes batches in this region: "
    "https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-supported.html lists them"
)


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
    if isinstance(error, (*NOT_SENT, *_WITHOUT_CREDENTIALS, ParamValidationError)):
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


def not_created(error: Exception, permission: str, model: str) -> LowtideError:
    """The error of a create call that failed: whether something was accepted is in its type."""
    if isinstance(error, ClientError):
        answer = said(error)
        if answer.throttled or answer.code == "ServiceQuotaExceededException":
            return QuotaFull(f"Bedrock has no room for another job now: {answer}")
        # 408 and 5xx may come from something between us and a service that has accepted the call. A conflict means
        # that this token has been used before: whoever looks finds out with what.
        if answer.status >= 500 or answer.status in {0, 408} or answer.code == "ConflictException":
            return SubmitUnknown(f"Bedrock did not say whether it has created the job: {answer}")
        advice = _advice(answer, permission) or f" ({_MODELS if 'model' in answer.message.lower() else _ADVICE})"
        return Terminal(f"Bedrock refused to create a job of {model!r}: {answer}{advice}")
    if never_sent(error) and isinstance(error, NoConnection):
        return Transient(f"Bedrock cannot be reached now: {without_password(error)}")
    if isinstance(error, _WITHOUT_CREDENTIALS):
        return ConfigError(f"there are no usable AWS credentials: {error}")
    if isinstance(error, ParamValidationError):
        return Terminal(f"boto3 refused the job before it was sent; is it older than 1.43? {error}")
    return SubmitUnknown(f"the connection to Bedrock broke before it answered: {type(error).__name__}")


def reported(error: Exception, doing: str, permission: str) -> LowtideError:
    """The error of a call that may be repeated: Transient where that is worth it, Terminal where it is not."""
    if isinstance(error, ClientError):
        answer = said(error)
        if answer.throttled or answer.status >= 500 or answer.status in {0, 408}:
            return Transient(f"cannot {doing} now: {answer}")
        return Terminal(f"cannot {doing}: {answer}{_advice(answer, permission)}")
    if isinstance(error, _WITHOUT_CREDENTIALS):
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


def _advice(answer: Said, permission: str) -> str:
    if answer.code in _CREDENTIALS:
        return " (check the keys, their expiry, and this machine's clock)"
    if answer.status == 403 or answer.code in {"AccessDeniedException", "AccessDenied"}:
        return f" (allow {permission})"
    return ""
