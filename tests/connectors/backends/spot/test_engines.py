"""What `lowtide doctor` says of the engine that workers of this machine would ask."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Thread

import pytest
from servers.engine import running
from servers.process import free_port
from servers.threaded import answering

from lowtide.connectors.backends.spot.engines import examine_engine
from lowtide_worker.layout import Engine

KEY = "k-0123456789abcdef"


class _Guarded(BaseHTTPRequestHandler):
    """A proxy that wants the key for everything but /open, and sends whoever asks for /moved on to /health."""

    def do_GET(self) -> None:
        welcome = self.headers.get("Authorization") == f"Bearer {KEY}" or self.path == "/open"
        self.send_response(302 if self.path == "/moved" else 200 if welcome else 401)
        self.send_header("Location", "/health")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def guarded() -> Iterator[str]:
    with answering(_Guarded) as url:
        yield f"{url}/v1"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOWTIDE_ENGINE_API_KEY", raising=False)
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


@pytest.mark.parametrize("name", ["LOWTIDE_ENGINE_API_KEY", "VLLM_API_KEY"])
def test_an_engine_that_runs_is_asked_for_its_health_with_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as url:
        without = examine_engine(Engine(url=url), "m", here=True)
        monkeypatch.setenv(name, KEY)
        with_key = examine_engine(Engine(url=url), "m", here=True)
    assert not without.ok
    assert without.found.endswith("answers 401; look at the API key in LOWTIDE_ENGINE_API_KEY")
    assert with_key.ok
    assert with_key.found.endswith("/health answers 200")


def test_an_engine_that_is_well_and_wants_a_key_all_the_same_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(key=KEY) as engine:
        without = examine_engine(Engine(url=engine.url), "m", here=True)
        monkeypatch.setenv("LOWTIDE_ENGINE_API_KEY", KEY)
        assert examine_engine(Engine(url=engine.url), "m", here=True).ok
    assert not without.ok
    assert without.found.endswith("/v1/models answers 401; look at the API key in LOWTIDE_ENGINE_API_KEY")


def test_an_engine_that_lists_no_models_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Guarded, "do_GET", lambda asked: asked.send_error(200 if asked.path == "/health" else 404))
    with guarded() as url:
        assert examine_engine(Engine(url=url), "m", here=True).ok


def test_the_key_follows_no_redirection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_ENGINE_API_KEY", KEY)
    with guarded() as url:
        finding = examine_engine(Engine(url=url, health="/moved"), "m", here=True)
    assert not finding.ok
    assert finding.found.endswith("/moved answers 302; look at engine.health")


def test_a_key_that_cannot_be_sent_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_ENGINE_API_KEY", "hunter2\nhunter3")
    finding = examine_engine(Engine(url="http://127.0.0.1:1"), "m", here=True)
    assert not finding.ok
    assert "LOWTIDE_ENGINE_API_KEY" in finding.found
    assert "hunter" not in finding.found


def test_an_engine_that_does_not_run_is_told_with_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    finding = examine_engine(Engine(url=url), "m", here=True)
    assert not finding.ok
    assert f"GET {url}/health" in finding.found
    assert "engine.url" in finding.found


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b""])
def test_what_speaks_no_http_is_told(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(said)

        speaking = Thread(target=speak)
        speaking.start()
        finding = examine_engine(Engine(url=f"http://127.0.0.1:{server.getsockname()[1]}"), "m", here=True)
        speaking.join()
    assert not finding.ok
    assert "/health: " in finding.found
    assert "start the engine" in finding.found


def test_a_program_that_is_not_here_is_told() -> None:
    engine = Engine(command=("no-such-engine", "{model}"))
    missing = examine_engine(engine, "m", here=True)
    assert not missing.ok
    assert "no-such-engine m: there is no program 'no-such-engine'" in missing.found
    assert examine_engine(Engine(command=("sh",)), "m", here=True).ok


def test_nothing_is_looked_at_where_workers_run_elsewhere() -> None:
    assert examine_engine(Engine(command=("no-such-engine",)), "m", here=False).ok
    assert examine_engine(Engine(url="http://127.0.0.1:1"), "m", here=False).ok
