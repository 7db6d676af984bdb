"""Errors as the two providers write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lowtide.emulators.openai.rules import Mode
from lowtide.emulators.web import Refused, Response

_AZURE_DENIED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one request is not answered: an HTTP status, and what stands under `error` in the body."""

    status: int
    message: str
    code: str | None = None
    kind: str = "invalid_request_error"
    param: str | None = None
    extra: Mapping[str, object] | None = None

    def body(self) -> Mapping[str, object]:
        """The body of the response."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": {**error, **(self.extra or {})}}


class BadRequest(Exception):
    """A request that the model's API rejects; carries the error."""

    def __init__(self, error: RowError) -> None:
        super().__init__(error.code)
        self.error = error


def refusal(error: RowError, headers: Mapping[str, str] | None = None) -> Refused:
    """The error as the answer to a call."""
    return Refused(Response.of(error.body(), error.status, headers))


def not_found(mode: Mode, kind: str, name: str) -> Refused:
    """404 for a file, a batch or a model that is not there."""
    if mode.name == "azure":
        return refusal(RowError(404, "Resource not found", code="404"))
    messages = {
        "file": f"No such File object: {name}",
        "batch": f"No batch found with id '{name}'.",
        "model": f"The model '{name}' does not exist",
        "object": "There is no such object.",
    }
    return refusal(RowError(404, messages[kind], code="model_not_found" if kind == "model" else None, param="id"))


def unauthorized(mode: Mode) -> Refused:
    """401: no key, or a wrong one."""
    if mode.name == "azure":
        return refusal(RowError(401, _AZURE_DENIED, code="401"))
    return refusal(RowError(401, "Incorrect API key provided.", code="invalid_api_key"))


def forbidden(mode: Mode) -> Refused:
    """403: a key that may not do this."""
    if mode.name == "azure":
        return refusal(RowError(403, "The principal lacks the required data action.", code="PermissionDenied"))
    return refusal(RowError(403, "You have insufficient permissions for this operation.", kind="permission_error"))


def throttled(mode: Mode, seconds: float) -> Refused:
    """429 with both headers that say how long to wait."""
    headers = {"retry-after-ms": str(round(seconds * 1000)), "retry-after": str(max(1, round(seconds)))}
    if mode.name == "azure":
        message = f"Requests have exceeded the rate limit of your current tier. Please retry after {seconds:g} seconds."
        return refusal(RowError(429, message, code="429", kind="requests"), headers)
    message = f"Rate limit reached. Please try again in {seconds:g}s."
    return refusal(RowError(429, message, code="rate_limit_exceeded", kind="requests"), headers)


def broken() -> Refused:
    """500, which says nothing of what was done."""
    message = "The server had an error while processing your request. Sorry about that!"
    return refusal(RowError(500, message, code="server_error", kind="server_error"))


def over_quota(mode: Mode, model: str, limit: int) -> tuple[str, str]:
    """Code and message where a deployment's or a model's enqueued tokens are used up."""
    place = "deployment" if mode.name == "azure" else "organization"
    return "token_limit_exceeded", (
        f"Enqueued token limit reached for {model} in this {place}. Limit: {limit:,} enqueued tokens. "
        "Please try again once some in_progress batches have been completed."
    )
