"""What S3 and boto3 say, in this project's own errors."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)
from botocore.parsers import ResponseParserError

from lowtide.connectors.stores.failures import Failure, Failures, Service

_REGION = "the bucket is in another region: set AWS_REGION to it"

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_S3 = Service(
    passing=frozenset({
        "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "Throttling",
        "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded", "ConditionalRequestConflict",
    }),
    passing_statuses=frozenset({408, 409, 429}),
    conflict=frozenset({"PreconditionFailed", "ConditionalRequestConflict"}),
    conflict_statuses=frozenset({409, 412}),
    credentials=frozenset({
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
        "RequestTimeTooSkewed", "AuthorizationHeaderMalformed",
    }),
    nowhere=frozenset({"NoSuchBucket"}),
    vanished=frozenset({"NoSuchUpload"}),
    permission={
        "list": "s3:ListBucket on the bucket",
        "read": "s3:GetObject on the object, and s3:ListBucket on the bucket, else S3 denies what is not there",
        "write": "s3:PutObject on the object (and the use of the bucket's KMS key, if it has one)",
        "delete": "s3:DeleteObject on the object",
    },
    advice={
        "PermanentRedirect": _REGION,
        "IllegalLocationConstraintException": _REGION,
        "NotImplemented": "this store does not know how",
    },
    no_bucket="there is no such bucket here: check its name, and the endpoint",
    otherwise="the S3 API reference explains its error codes",
)  # fmt: skip


class _S3Failures(Failures):
    raised = (*Failures.raised, ClientError, BotoCoreError, ResponseParserError)

    def explain(self, error: Exception) -> Failure:
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            answer = error.response.get("Error", {})
            code = answer.get("Code", "")
            return Failure(_S3, status, "" if code.isdigit() else code, answer.get("Message", "")[:300])
        if isinstance(error, HTTPClientError | EndpointConnectionError | ConnectTimeoutError | ResponseParserError):
            return Failure(_S3, 0, "", "", type(error).__name__)
        if isinstance(error, BotoCoreError):
            return Failure(_S3, 0, "", str(error)[:300])
        return super().explain(error)


S3_FAILURES = _S3Failures(_S3)
