"""Service Quotas on the wire: AWS JSON 1.1 at /, told apart by X-Amz-Target."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence

from lowtide.emulators.app import App, guarded
from lowtide.emulators.bedrock.quotas import quotas
from lowtide.emulators.bedrock.settings import Quotas, Settings
from lowtide.emulators.bedrock.wire import caller
from lowtide.emulators.faults import Fault
from lowtide.emulators.web import Request, Response, Route

_TARGET = "ServiceQuotasV20190624."
_PAGE = 100


class QuotaApi:
    """What an account may do in a region, by the settings of the moment."""

    def __init__(self, app: App, settings: Callable[[], Settings]) -> None:
        self._app, self._settings = app, settings

    def routes(self) -> Sequence[Route]:
        """One route: POST /."""
        return [Route("POST", "/", self._post)]

    def _post(self, request: Request) -> Response:
        operation = request.header("X-Amz-Target").removeprefix(_TARGET)
        self._app.calls.count("servicequotas", operation)
        known = caller(request, f"servicequotas:{operation}", self._settings().denied)
        try:
            asked = request.json() or {}
        except ValueError:
            asked = None
        if not isinstance(asked, Mapping):
            return _error("SerializationException", "the body is no JSON object")
        return guarded(
            self._app,
            "list",
            lambda: self._answered(operation, asked, known.region),
            _refused,
            service="bedrock",
            operation=operation,
        )

    def _answered(self, operation: str, asked: Mapping[str, object], region: str) -> Response:
        settings = self._settings()
        if asked.get("ServiceCode") != "bedrock":
            return _error("NoSuchResourceException", "The request failed because the specified service does not exist.")
        applied = Quotas() if operation == "ListAWSDefaultServiceQuotas" else settings.quotas
        known = quotas(settings, applied)
        match operation:
            case "ListServiceQuotas" | "ListAWSDefaultServiceQuotas":
                code = asked.get("QuotaCode")
                return _page([quota.shown(region) for quota in known if code in {None, quota.code}], asked)
            case "GetServiceQuota":
                found = [quota for quota in known if quota.code == asked.get("QuotaCode")]
                if found:
                    return Response.of({"Quota": found[0].shown(region)})
                return _error("NoSuchResourceException", "The request failed because the quota does not exist.")
        return _error("UnknownOperationException", f"nothing answers {operation}")


def _page(shown: list[Mapping[str, object]], asked: Mapping[str, object]) -> Response:
    size, token = asked.get("MaxResults", _PAGE), asked.get("NextToken")
    if not isinstance(size, int) or not 1 <= size <= _PAGE:
        return _error("IllegalArgumentException", "MaxResults is from 1 to 100")
    try:
        start = int(base64.b64decode(str(token))) if token else 0
    except ValueError:
        return _error("InvalidPaginationTokenException", "The NextToken is not valid.")
    answer: dict[str, object] = {"Quotas": shown[start : start + size]}
    if start + size < len(shown):
        answer["NextToken"] = base64.b64encode(str(start + size).encode()).decode()
    return Response.of(answer)


def _refused(fault: Fault) -> Response:
    match fault.do:
        case "throttle":
            return _error("TooManyRequestsException", "Rate exceeded", 429)
        case "not_found":
            return _error("NoSuchResourceException", "The quota does not exist.")
    return _error("ServiceException", "Something went wrong.", 500)


def _error(code: str, message: str, status: int = 400) -> Response:
    return Response.of({"__type": code, "message": message}, status)
