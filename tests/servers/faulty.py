"""A proxy in front of an S3 server that fails on request: it answers in the server's place, or loses its answer."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from servers.threaded import answering


@dataclass
class Fault:
    """The next `times` requests of this method whose target holds `where` get this answer.

    With `forward` the server has done the work nonetheless. `status` 0 ends the connection without an answer, and
    `silence` keeps the client waiting for that many seconds first.
    """

    method: str
    status: int
    code: str = ""
    where: str = ""
    times: int = 1
    forward: bool = False
    silence: float = 0.0


@dataclass
class Faulty:
    """`url` is the proxy's; `faults` may be changed at any time; `seen` holds every request, as `PUT /bucket/key`."""

    upstream: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, target: str) -> Fault | None:
        """The fault that this request meets, if any."""
        with self._lock:
            self.seen.append(f"{method} {target}")
            for fault in self.faults:
                if fault.method == method and fault.where in target and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def faulty(upstream: str) -> Iterator[Faulty]:
    """Serve a proxy to `upstream` on a loopback port for as long as the block lasts."""
    proxy = Faulty(upstream)

    class Handler(_Handler):
        faults = proxy

    with answering(Handler) as proxy.url:
        try:
            yield proxy
        finally:
            proxy.done.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faulty

    def _serve(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.headers.replace_header("Expect", "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.take(self.command, self.path)
        if fault is None or fault.forward:
            status, headers, data = self._forward(body)
        else:
            status, headers, data = fault.status, [], b""
        if fault is not None:
            self.faults.done.wait(fault.silence)
            status, headers = fault.status, [("Content-Type", "application/xml")]
            data = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>asked for</Message></Error>".encode()
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        head = self.command == "HEAD" and length is not None
        self.send_header("Content-Length", length if head and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(urlsplit(self.faults.upstream).netloc, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `seen` instead."""
