"""The metadata services of EC2 (IMDSv2) and Azure, as far as workers ask them, in a thread on a loopback port.

As strict as the real ones: EC2's refuses a question without a token that it gave, with 401; Azure's refuses one without
the header `Metadata: true` or with an `X-Forwarded-For`, with 400, and one without a version it knows. A notice is 404,
or in no event, until it is set.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from servers.threaded import answering

IDENTITY = {
    "instanceId": "i-0123456789abcdef0",
    "instanceType": "g6.xlarge",
    "region": "eu-central-1",
    "availabilityZone": "eu-central-1b",
    "accountId": "123456789012",
}
COMPUTE = {
    "name": "gpus_3",
    "vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6",
    "vmSize": "Standard_NC4as_T4_v3",
    "location": "westeurope",
    "zone": "2",
}


@dataclass
class Metadata:
    """Which of the two answers is `kind`; what it says may be changed at any time. `seen` holds every request."""

    kind: str
    url: str = ""
    instance_action: dict[str, str] | None = None
    rebalance: dict[str, str] | None = None
    events: list[dict[str, object]] = field(default_factory=list)
    failing: int = 0
    seen: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def interrupt(self) -> None:
        """Give the notice that this spot instance will be terminated."""
        self.instance_action = {"action": "terminate", "time": "2026-11-20T08:22:00Z"}

    def schedule(self, event_type: str, *resources: str) -> None:
        """Announce an Azure event for these machines."""
        self.events.append(
            {
                "EventId": secrets.token_hex(8),
                "EventType": event_type,
                "ResourceType": "VirtualMachine",
                "Resources": list(resources),
                "EventStatus": "Scheduled",
                "NotBefore": "Fri, 20 Nov 2026 08:22:00 GMT",
                "Description": "",
                "EventSource": "Platform",
                "DurationInSeconds": -1,
            }
        )

    def forget_tokens(self) -> None:
        """As after their time is over."""
        self.tokens.clear()


@contextmanager
def metadata(kind: str) -> Iterator[Metadata]:
    """Serve EC2's ("ec2") or Azure's ("azure") for as long as the block lasts."""
    service = Metadata(kind)

    class Handler(_Ec2 if kind == "ec2" else _Azure):  # type: ignore[misc]  # one of two base classes
        said = service

    with answering(Handler) as service.url:
        yield service


class _Handler(BaseHTTPRequestHandler):
    said: Metadata

    def _fails(self) -> bool:
        self.said.seen.append(f"{self.command} {self.path}")
        if self.said.failing:
            self.said.failing -= 1
            self._answer(503)
            return True
        return False

    def _answer(self, status: int, body: object = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `seen` instead."""


class _Ec2(_Handler):
    def do_PUT(self) -> None:
        if self._fails():
            return
        life = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token":
            self._answer(404)
        elif not (life.isdigit() and 1 <= int(life) <= 21600) or "X-Forwarded-For" in self.headers:
            self._answer(400 if "X-Forwarded-For" not in self.headers else 403)
        else:
            token = secrets.token_urlsafe(32)
            self.said.tokens.add(token)
            self._answer(200, token)

    def do_GET(self) -> None:
        if self._fails():
            return
        answers: dict[str, object] = {
            "/latest/dynamic/instance-identity/document": IDENTITY,
            "/latest/meta-data/spot/instance-action": self.said.instance_action,
            "/latest/meta-data/events/recommendations/rebalance": self.said.rebalance,
        }
        if self.headers.get("X-aws-ec2-metadata-token") not in self.said.tokens:
            self._answer(401)
        elif answers.get(self.path) is None:
            self._answer(404)
        else:
            self._answer(200, answers[self.path])


class _Azure(_Handler):
    def do_GET(self) -> None:
        if self._fails():
            return
        asked = urlsplit(self.path)
        version = parse_qs(asked.query).get("api-version", [""])[0]
        answers: dict[tuple[str, str], object] = {
            ("/metadata/instance", "2021-02-01"): {"compute": COMPUTE, "network": {"interface": []}},
            ("/metadata/scheduledevents", "2020-07-01"): {
                "DocumentIncarnation": len(self.said.events),
                "Events": self.said.events,
            },
        }
        if self.headers.get("Metadata") != "true" or "X-Forwarded-For" in self.headers:
            self._answer(400, {"error": "Bad request. Required metadata header not specified"})
        elif (asked.path, version) not in answers:
            self._answer(400 if version else 404, {"error": "Bad request. api-version is invalid or was not specified"})
        else:
            self._answer(200, answers[asked.path, version])

    def do_PUT(self) -> None:
        if not self._fails():
            self._answer(405)
