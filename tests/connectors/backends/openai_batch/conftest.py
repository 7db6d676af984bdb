"""Three kinds of servers: the emulators, aimock, and one that answers as the test says."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest
from servers.aimock import aimock
from servers.emulators import Emulator, emulators
from servers.threaded import answering


@pytest.fixture(scope="session")
def aimock_url() -> Iterator[str]:
    with aimock() as url:
        yield url


@pytest.fixture(scope="session")
def running_emulator() -> Iterator[Emulator]:
    with emulators(speed=20) as running:
        yield running


@pytest.fixture
def emulator(running_emulator: Emulator) -> Emulator:
    """The emulators, as if they had just been started."""
    running_emulator.reset()
    return running_emulator


@dataclass(frozen=True)
class Reply:
    """What a scripted server answers. `status` 0 resets the connection, and `silence` hangs before that."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    silence: float = 0.0


@dataclass
class Scripted:
    """A server that answers what `answer(method, path, body)` says; `seen` holds `POST /v1/batches` and so on."""

    url: str = ""
    answer: Callable[[str, str, bytes], Reply] = lambda method, path, body: Reply(404)
    seen: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    script = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.seen.append(f"{self.command} {self.path}")
            script.bodies.append(body)
            reply = script.answer(self.command, self.path, body)
            if reply.silence:
                script.done.wait(reply.silence)
            if not reply.status:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            """Tests look at `seen` instead."""

    with answering(Handler) as script.url:
        yield script
        script.done.set()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply
