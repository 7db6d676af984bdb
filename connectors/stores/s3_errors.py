"""What S3 and the two clients say, in this project's own errors.

obstore keeps HTTP status, S3 error code and kind of network failure in its messages only, in fixed forms
(https://docs.rs/object_store/latest/src/object_store/client/retry.rs.html); they are cut out here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError

from lowtide.errors import LowtideError, NotFound, StoreError, Transient

Doing = Literal["list", "read", "write", "delete"]

FAILURES = (BaseError, FileNotFoundError, ClientError, BotoCoreError)

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_SAID = re.compile(r"<Message>([^<]{1,300})")
_NETWORK = re.compile(r"HttpError \{\s*kind: (\w+)")
_REDIRECT = "Received redirect without LOCATION"

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_PASSING = frozenset({
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "Throttling",
    "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "ConditionalRequestConflict",
})  # fmt: skip
_CREDENTIALS = frozenset({
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
    "RequestTimeTooSkewed", "AuthorizationHeaderMalformed",
})  # fmt: skip
_PERMISSION = {
    "list": "s3:ListBucket on the bucket",
    "read": "s3:GetObject on the object, and s3:ListBucket on the bucket, without which S3 denies what is not there",
    "write": "s3:PutObject on the object (and the use of the bucket's KMS key, if it has one)",
    "delete": "s3:DeleteObject on the object",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failed request. `status` is 0 where there was no answer; `code` is S3's own word, or ""."""

    status: int
    code: str
    said: str
    network: str = ""

    @property
    def passing(self) -> bool:
        """Whether the same request may work later. 501 will not: the store does not know how."""
        if self.network or self.code in _PASSING or self.status in {408, 409, 429}:
            return True
        return self.status >= 500 and self.status != 501

    @property
    def conflict(self) -> bool:
        """Whether a condition of the request did not hold, or another writer was in the way."""
        return self.status in {409, 412} or self.code in {"PreconditionFailed", "ConditionalRequestConflict"}

    @property
    def missing(self) -> bool:
        """Whether the object is not there. A bucket that is not there is another matter."""
        return self.status == 404 and self.code not in {"NoSuchBucket", "NoSuchUpload"}

    @property
    def wholesale(self) -> bool:
        """Whether every other object would fail in the same way."""
        return self.passing or self.status == 401 or self.code in _CREDENTIALS or self.code == "NoSuchBucket"


def explain(error: Exception) -> Failure:
    """What is known of a failure that obstore or boto3 raised."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        answer = error.response.get("Error", {})
        code = answer.get("Code", "")
        return Failure(status, "" if code.isdigit() else code, answer.get("Message", "")[:300])
    if isinstance(error, HTTPClientError):
        return Failure(0, "", "", type(error).__name__)
    text = str(error)
    if isinstance(error, BotoCoreError):
        return Failure(0, "", text[:300])
    status = int(found[1]) if (found := _STATUS.search(text)) else _status_of(error)
    code = found[1] if (found := _CODE.search(text)) else ""
    said = found[1] if (found := _SAID.search(text)) else ""
    network = found[1] if not status and (found := _NETWORK.search(text)) else ""
    return Failure(status, "PermanentRedirect" if _REDIRECT in text else code, said, network)


def reported(error: Exception, uri: str, doing: Doing) -> LowtideError:
    """The error to raise instead: it names the object, says what was found, and what to do."""
    failure = explain(error)
    found = failure.code or failure.network or (f"HTTP {failure.status}" if failure.status else type(error).__name__)
    told = f"{found}: {failure.said}" if failure.said else found
    if doing == "read" and failure.missing:
        return NotFound(f"there is no object {uri!r}", uri=uri)
    if failure.passing:
        return Transient(f"cannot {doing} {uri!r} now: {told}")
    return StoreError(f"cannot {doing} {uri!r}: {told} ({_advice(failure, doing)})", uri=uri)


@contextmanager
def translated(uri: str, doing: Doing) -> Iterator[None]:
    """Turn what obstore and boto3 raise about this object into NotFound, Transient or StoreError."""
    try:
        yield
    except FAILURES as error:
        raise reported(error, uri, doing) from error


def _status_of(error: Exception) -> int:
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, AlreadyExistsError):
        return 409
    if isinstance(error, PreconditionError):
        return 412
    return 403 if isinstance(error, PermissionDeniedError) else 0


def _advice(failure: Failure, doing: Doing) -> str:
    if failure.code == "NoSuchBucket" or (failure.status == 404 and doing != "read"):
        advice = "there is no such bucket here: check its name, and the endpoint"
    elif failure.code in {"PermanentRedirect", "IllegalLocationConstraintException"}:
        advice = "the bucket is in another region: set AWS_REGION to it"
    elif failure.code in _CREDENTIALS or failure.status == 401:
        advice = "the credentials were not accepted: check the keys, their expiry, and this machine's clock"
    elif failure.status == 403:
        advice = f"allow {_PERMISSION[doing]}"
    elif failure.status == 501 or failure.code == "NotImplemented":
        advice = "this store does not know how"
    elif failure.status == 412:
        advice = "it was changed meanwhile: try again"
    else:
        advice = "the S3 API reference explains its error codes"
    return advice
