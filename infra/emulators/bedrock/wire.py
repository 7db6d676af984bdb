"""AWS on the wire: who calls, from which region, and how errors are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from lowtide.emulators.web import Refused, Request, Response

ACCOUNT = "123456789012"
DENIED_KEY = "denied"
_CREDENTIAL = re.compile(r"Credential=([^/\s,]+)/\d{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request")
_STATUS = {
    "AccessDeniedException": 403,
    "MissingAuthenticationTokenException": 403,
    "ConflictException": 400,
    "InternalServerException": 500,
    "NoSuchResourceException": 400,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 400,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "ValidationException": 400,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. Signatures are not checked: any secret will do."""

    key_id: str
    region: str


def caller(request: Request, action: str, denied: frozenset[str]) -> Caller:
    """Who calls, if he may do `action`. Raises Refused (403): no credentials, the key id `denied`, a denied action."""
    authorization = request.header("Authorization")
    found = _CREDENTIAL.search(authorization)
    if found:
        known = Caller(found[1], found[2])
    elif authorization.startswith("Bearer "):
        known = Caller("bearer", "us-east-1")
    else:
        raise Refused(error("MissingAuthenticationTokenException", "Missing Authentication Token"))
    if known.key_id == DENIED_KEY or action in denied:
        raise Refused(error("AccessDeniedException", not_authorized(known, action)))
    return known


def not_authorized(known: Caller, action: str) -> str:
    """IAM's sentence about an action that is not allowed."""
    return (
        f"User: arn:aws:iam::{ACCOUNT}:user/{known.key_id} is not authorized to perform: {action} "
        "because no identity-based policy allows the action"
    )


def error(code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as AWS writes it: botocore reads its code from the header, or in JSON 1.1 from the body's `__type`."""
    return Response.of(
        {"__type": code, "message": message}, _STATUS[code], {"x-amzn-ErrorType": code, **(headers or {})}
    )


def iso(moment: float) -> str:
    """A time as restJson1 writes it: `2026-11-21T06:00:00.123Z`."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """The time that a query parameter names, in seconds since the epoch. Raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
