"""The handle of the emulators: /_emulator/..., in JSON, for whoever runs a test or looks at the bill."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import orjson

from lowtide.emulators.app import App, Service
from lowtide.emulators.faults import BadPlan
from lowtide.emulators.web import Refused, Request, Response, Route


class Control:
    """Routes under /_emulator."""

    def __init__(self, app: App, services: Sequence[Service]) -> None:
        self._app, self._services = app, services

    def routes(self) -> Sequence[Route]:
        """health, bill, bill/records, calls, clock, faults, settings, reset."""
        return [
            Route("GET", "/_emulator/health", self._health),
            Route("GET", "/_emulator/bill", self._bill),
            Route("GET", "/_emulator/bill/records", self._records),
            Route("GET", "/_emulator/calls", self._calls),
            Route("GET", "/_emulator/clock", self._clock),
            Route("POST", "/_emulator/clock", self._set_clock),
            Route("GET", "/_emulator/faults", self._faults),
            Route("POST", "/_emulator/faults", self._set_faults),
            Route("GET", "/_emulator/settings", self._settings),
            Route("POST", "/_emulator/settings", self._set_settings),
            Route("POST", "/_emulator/reset", self._reset),
        ]

    def _health(self, request: Request) -> Response:
        return Response.of({"status": "ok", "services": [service.name for service in self._services]})

    def _bill(self, request: Request) -> Response:
        batch = request.query.get("batch")
        return Response.of(self._app.bill.summary() if batch is None else self._app.bill.totals(batch_id=batch))

    def _records(self, request: Request) -> Response:
        return Response(200, self._charge_lines(request.query.get("batch")), {"Content-Type": "application/x-ndjson"})

    def _charge_lines(self, batch: str | None) -> Iterator[bytes]:
        for charge in self._app.bill.charges(batch_id=batch):
            yield orjson.dumps(dataclasses.asdict(charge), option=orjson.OPT_APPEND_NEWLINE)

    def _calls(self, request: Request) -> Response:
        return Response.of(self._app.calls.summary())

    def _clock(self, request: Request) -> Response:
        return Response.of({"now": self._app.clock.now(), "speed": self._app.clock.speed})

    def _set_clock(self, request: Request) -> Response:
        asked = _mapping(request, {"advance", "speed"})
        for name, change in (("speed", self._app.clock.set_speed), ("advance", self._app.clock.advance)):
            value = asked.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise Refused(_bad(f"`{name}` is a number"))
            try:
                change(float(value))
            except ValueError as error:
                raise Refused(_bad(str(error))) from error
        return self._clock(request)

    def _faults(self, request: Request) -> Response:
        return Response.of({"plan": self._app.faults.plan, "done": self._app.faults.done()})

    def _set_faults(self, request: Request) -> Response:
        try:
            self._app.faults.follow(_mapping(request, {"seed", "rules"}))
        except BadPlan as error:
            raise Refused(_bad(str(error))) from error
        return self._faults(request)

    def _settings(self, request: Request) -> Response:
        return Response.of({service.name: service.settings() for service in self._services})

    def _set_settings(self, request: Request) -> Response:
        asked = _mapping(request, {service.name for service in self._services})
        for service in self._services:
            settings = asked.get(service.name, {})
            if not isinstance(settings, Mapping):
                raise Refused(_bad(f"the settings of `{service.name}` are a mapping"))
            try:
                service.configure(settings)
            except ValueError as error:
                raise Refused(_bad(f"{service.name}: {error}")) from error
        return self._settings(request)

    def _reset(self, request: Request) -> Response:
        for service in self._services:
            service.reset()
        self._app.faults.reset()
        self._app.clock.reset()
        self._app.calls.clear()
        self._app.bill.clear()
        return self._health(request)


def _mapping(request: Request, known: set[str]) -> Mapping[str, object]:
    try:
        asked = request.json()
    except ValueError as error:
        raise Refused(_bad("the body is not JSON")) from error
    if not isinstance(asked, dict) or set(asked) - known:
        raise Refused(_bad(f"the body is a JSON object with any of {sorted(known)}"))
    return asked


def _bad(message: str) -> Response:
    return Response.of({"message": message}, 400)
