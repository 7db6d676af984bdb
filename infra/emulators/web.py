"""A small HTTP/1.1 server for the services: routes, bodies that stay on disk, and connections that break on request."""

from __future__ import annotations

import re
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

_CHUNK = 1 << 16
_KEPT_IN_MEMORY = 1 << 20
# SO_LINGER on, for 0 seconds: close() then sends RST instead of FIN.
_LINGER_ZERO = struct.pack("ii", 1, 0)


class Reset(Exception):
    """Raised by a handler: the connection is reset (TCP RST) and nothing is answered."""


class Hang(Exception):
    """Raised by a handler: nothing is answered for `seconds` of real time, then the connection is closed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(frozen=True)
class Response:
    """An answer. An iterator's bytes go out chunked as they come, unless `length` says how many there will be."""

    status: int
    body: bytes | Iterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    @classmethod
    def of(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """The value as JSON."""
        return cls(status, orjson.dumps(value), {"Content-Type": "application/json", **(headers or {})})


class Refused(Exception):
    """Raised by a handler anywhere: this is the answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


@dataclass
class Request:
    """What was asked. `path` is decoded, `raw_path` as it came; header names are looked up in any case.

    `body` is a file at its beginning, on disk once it is larger than 1 MiB, and closed after the answer: a handler
    that keeps it copies it. `params` are the route's `{names}`, decoded.
    """

    method: str
    path: str
    raw_path: str
    query: Mapping[str, str]
    headers: Message[str, str]
    body: IO[bytes]
    length: int
    params: Mapping[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str:
        """The header's value; empty where there is none."""
        return str(self.headers.get(name, ""))

    def read(self) -> bytes:
        """The whole body."""
        self.body.seek(0)
        return self.body.read()

    def json(self) -> object:
        """The body as JSON; None where it is empty. Raises ValueError."""
        data = self.read()
        return orjson.loads(data) if data else None


Handler = Callable[[Request], Response]


class Route:
    """A handler for a method and a path: segments, where `{name}` stands for any one, in which %2F may hide a slash."""

    def __init__(self, method: str, pattern: str, handler: Handler) -> None:
        self.method, self.pattern, self.handler = method, pattern, handler
        parts = re.split(r"\{(\w+)\}", pattern)
        self._names = parts[1::2]
        self._match = re.compile("([^/]+)".join(re.escape(part) for part in parts[0::2]) + "/?").fullmatch

    def params(self, raw_path: str) -> Mapping[str, str] | None:
        """The values of the `{names}` where the path (not decoded) is this route's; else None."""
        found = self._match(raw_path)
        return None if found is None else dict(zip(self._names, map(unquote, found.groups()), strict=True))


class Server(ThreadingHTTPServer):
    """Serves routes on the loopback, one thread for each connection. `stopping` ends what hangs.

    `now` gives what the header Date says, in seconds since the epoch.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self,
        port: int,
        routes: Sequence[Route],
        folder: Path,
        stopping: threading.Event,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Listen on a port of 127.0.0.1, 0 for any; large bodies are spooled in `folder`. Raises OSError."""
        self.routes, self.folder, self.stopping, self.now = tuple(routes), folder, stopping, now
        super().__init__(("127.0.0.1", port), _Connection)

    @property
    def url(self) -> str:
        """Where it listens, e.g. `http://127.0.0.1:34567`."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are nothing to report."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            traceback.print_exc()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    wbufsize = _CHUNK
    disable_nagle_algorithm = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The time by the server's clock."""
        return super().date_time_string(self.server.now() if timestamp is None else timestamp)

    def _serve(self) -> None:
        with tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY, dir=str(self.server.folder)) as body:
            try:
                length = self._receive(body)
                self._send(self._answer(body, length))
            except Reset:
                self._break()
            except Hang as hang:
                self.server.stopping.wait(hang.seconds)
                self.close_connection = True

    def _answer(self, body: IO[bytes], length: int) -> Response:
        target = urlsplit(self.path)
        for route in self.server.routes:
            if route.method != self.command:
                continue
            params = route.params(target.path)
            if params is not None:
                query = dict(parse_qsl(target.query, keep_blank_values=True))
                request = Request(
                    self.command, unquote(target.path), target.path, query, self.headers, body, length, params
                )
                return self._handled(route.handler, request)
        message = f"nothing answers {self.command} {unquote(target.path)}"
        return Response.of({"message": message, "error": {"code": "404", "message": message}}, 404)

    def _handled(self, handler: Handler, request: Request) -> Response:
        try:
            return handler(request)
        except Refused as refused:
            return refused.response
        except (Reset, Hang):
            raise
        except Exception:
            # A fault of the emulator's own: told here in full, and to the client by a status that no provider has, so
            # that it cannot be taken for an emulated answer.
            traceback.print_exc()
            return Response.of({"message": "the emulator failed; its standard error says how"}, 599)

    def _receive(self, into: IO[bytes]) -> int:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            received = 0
            while size := int(self.rfile.readline().split(b";")[0], 16):
                received += self._copy(size, into)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            received = self._copy(int(self.headers.get("Content-Length") or 0), into)
        into.seek(0)
        return received

    def _copy(self, size: int, into: IO[bytes]) -> int:
        left = size
        while left:
            data = self.rfile.read(min(left, _CHUNK))
            if not data:
                raise ConnectionResetError("the client left in the middle of its body")
            into.write(data)
            left -= len(data)
        return size

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        body = response.body
        length = len(body) if isinstance(body, bytes) else response.length
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if isinstance(body, bytes):
            self.wfile.write(body)
        elif length is not None:
            for part in body:
                self.wfile.write(part)
        else:
            for part in body:
                if part:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _break(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """What was asked is counted in the calls instead; a body's text is in no log."""


def file_parts(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from `start` up to `end`, in parts of 64 KiB."""
    with path.open("rb") as file:
        file.seek(start)
        left = path.stat().st_size - start if end is None else end - start
        while left > 0 and (data := file.read(min(_CHUNK, left))):
            left -= len(data)
            yield data
