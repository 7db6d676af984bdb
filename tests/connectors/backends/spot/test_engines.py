"""What `lowtide doctor` says of the engine that workers of this machine would ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from servers.process import free_port

from lowtide.connectors.backends.spot.engines import examine_engine
from lowtide_worker.layout import Engine

KEY = "k-0123456789abcdef"


class _Guarded(BaseHTTPRequestHandler):
    """A proxy that wants the key for everything, /health included."""

    def do_GET(self) -> None:
        welcome = self.headers.get("Authorization") == f"Bearer {KEY}" and self.path == "/health"
        self.send_response(200 if welcome else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def guarded() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Guarded) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


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


def test_a_program_that_is_not_here_is_told() -> None:
    engine = Engine(command=("no-such-engine", "{model}"))
    missing = examine_engine(engine, "m", here=True)
    assert not missing.ok
    assert "no-such-engine m: there is no program 'no-such-engine'" in missing.found
    assert examine_engine(Engine(command=("sh",)), "m", here=True).ok


def test_nothing_is_looked_at_where_workers_run_elsewhere() -> None:
    assert examine_engine(Engine(command=("no-such-engine",)), "m", here=False).ok
    assert examine_engine(Engine(url="http://127.0.0.1:1"), "m", here=False).ok
