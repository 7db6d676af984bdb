from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lowtide.emulators.web import Hang, Refused, Request, Reset, Response, Route, Server, file_parts


class Pages:
    """Handlers that answer with what they were asked."""

    def __init__(self, folder):
        self.folder = folder
        self.done = 0

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/thing/{id}/part/{part}", self.thing),
            Route("POST", "/echo", self.echo),
            Route("GET", "/stream", lambda request: Response(200, self.stream())),
            Route("GET", "/file", lambda request: Response(200, file_parts(self.folder / "f"), length=300_000)),
            Route("GET", "/reset", self.reset),
            Route("GET", "/hang", self.hang),
            Route("GET", "/refused", self.refused),
            Route("GET", "/broken", lambda request: Response(1 // 0)),
        ]

    def thing(self, request: Request) -> Response:
        return Response.of({**request.params, "query": dict(request.query), "path": request.path})

    def echo(self, request: Request) -> Response:
        data = request.read()
        return Response(200, data[:10], {"X-Length": str(len(data)), "X-On-Disk": str(request.body._rolled)})

    def stream(self) -> Iterator[bytes]:
        yield from (b"one", b"", b"two")

    def reset(self, request: Request) -> Response:
        self.done += 1
        raise Reset

    def hang(self, request: Request) -> Response:
        raise Hang(0.3)

    def refused(self, request: Request) -> Response:
        raise Refused(Response.of({"no": True}, 418))


@pytest.fixture
def server(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 300_000)
    server = Server(0, Pages(tmp_path).routes(), tmp_path, threading.Event())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def connection(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    yield connection
    connection.close()


def ask(connection, method, path, body=None, headers=None, **more):
    connection.request(method, path, body, headers or {}, **more)
    answer = connection.getresponse()
    return answer, answer.read()


def test_names_in_a_path_are_decoded_with_the_slashes_they_hide(connection):
    _, body = ask(connection, "GET", "/thing/arn%3Aa%2Fb/part/2?x=1&y=a%20b&z=")
    assert b'"id":"arn:a/b","part":"2"' in body
    assert b'{"x":"1","y":"a b","z":""}' in body
    assert ask(connection, "GET", "/thing/a/b/part/2")[0].status == 404


def test_a_connection_is_kept_for_the_next_request(connection):
    ask(connection, "GET", "/stream")
    first = connection.sock
    assert ask(connection, "GET", "/stream")[1] == b"onetwo"
    assert ask(connection, "GET", "/refused")[0].status == 418
    assert connection.sock is first


def test_bodies_come_with_a_length_or_in_chunks(connection):
    assert ask(connection, "POST", "/echo", b"0123456789abc")[0].headers["X-Length"] == "13"
    chunks = iter([b"0123", b"4567", b"89"])
    answer, body = ask(connection, "POST", "/echo", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert (answer.headers["X-Length"], body) == ("10", b"0123456789")


def test_a_stream_of_known_length_is_not_chunked(connection):
    answer, body = ask(connection, "GET", "/file")
    assert answer.headers["Content-Length"] == "300000"
    assert body == b"x" * 300_000


def test_a_large_body_lies_on_disk_and_a_small_one_does_not(connection):
    assert ask(connection, "POST", "/echo", b"y" * 5_000_000)[0].headers["X-On-Disk"] == "True"
    assert ask(connection, "POST", "/echo", b"y" * 5_000)[0].headers["X-On-Disk"] == "False"


def test_a_reset_is_a_reset_and_not_an_end(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as raw:
        raw.sendall(b"GET /reset HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            raw.recv(100)


def test_a_hang_says_nothing_and_then_ends(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as raw:
        raw.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = time.monotonic()
        assert raw.recv(100) == b""
        assert time.monotonic() - begun >= 0.25


def test_a_fault_of_the_emulator_looks_like_no_providers_error(connection, capsys):
    assert ask(connection, "GET", "/broken")[0].status == 599
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_only_the_loopback_is_listened_on(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}"
