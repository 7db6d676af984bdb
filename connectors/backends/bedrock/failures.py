"""What Bedrock says of a job that it has not created, in this project's own errors.

The exceptions of each operation are those of the SDK's service model (boto3 1.43, `bedrock` and `bedrock-runtime`):
ServiceQuotaExceeded and Conflict come with HTTP 400, Throttling with 429, InternalServer with 500.
"""

from __future__ import annotations

from botocore.exceptions import ClientError, ParamValidationError
from botocore.exceptions import ConnectionError as NoConnection

from lowtide.connectors.backends.aws.failures import WITHOUT_CREDENTIALS, advice, never_sent, said, without_password
from lowtide.errors import ConfigError, LowtideError, QuotaFull, SubmitUnknown, Terminal, Transient

_ADVICE = "see docs/backends/bedrock.md for what a job needs"
_MODELS = (
    "choose a model that takes batches in this region: "
    "https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-supported.html lists them"
)


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
        told = advice(answer, permission) or f" ({_MODELS if 'model' in answer.message.lower() else _ADVICE})"
        return Terminal(f"Bedrock refused to create a job of {model!r}: {answer}{told}")
    if never_sent(error) and isinstance(error, NoConnection):
        return Transient(f"Bedrock cannot be reached now: {without_password(error)}")
    if isinstance(error, WITHOUT_CREDENTIALS):
        return ConfigError(f"there are no usable AWS credentials: {error}")
    if isinstance(error, ParamValidationError):
        return Terminal(f"boto3 refused the job before it was sent; is it older than 1.43? {error}")
    return SubmitUnknown(f"the connection to Bedrock broke before it answered: {type(error).__name__}")
