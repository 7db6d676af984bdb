"""The engine as a subprocess: it starts, is watched, and never outlives its worker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import pytest
from servers.engine import command, running

import lowtide_worker.engine
from lowtide_worker import layout
from lowtide_worker.engine import Supervisor, filled, known_failure
from lowtide_worker.ports import EngineFailed

PATIENCE = 30.0
SECRET = "the patient's name is Wilhelmina"

# An engine in few words: it listens on its port, says what it was told to say, and has a child as vLLM has.
SMALL = """
import http.server, os, signal, subprocess, sys, time
port, says, refuses_to_end = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "stubborn"
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf])
print(says, child.pid, flush=True)
if refuses_to_end:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def small(says: str = "ready", manner: str = "gentle") -> tuple[str, ...]:
    return (sys.executable, "-c", SMALL, "{port}", says, manner)


def failing(says: str, code: int = 1) -> tuple[str, ...]:
    return (sys.executable, "-c", "import sys; print(sys.argv[1]); sys.exit(int(sys.argv[2]))", says, str(code))


def settings(words: Sequence[str], boot_seconds: float = PATIENCE) -> layout.Engine:
    return layout.Engine(command=tuple(words), boot_seconds=boot_seconds)


def with_engine(
    words: Sequence[str], folder: Path, use: Callable[[Supervisor, str], Awaitable[None]], stop_seconds: float = 5.0
) -> None:
    async def work() -> None:
        engine = Supervisor(settings(words), "a-model", folder, stop_seconds=stop_seconds)
        try:
            await use(engine, await engine.start())
        finally:
            await engine.stop()

    asyncio.run(work())


def failure_of(engine: layout.Engine, folder: Path) -> str:
    with pytest.raises(EngineFailed) as failed:
        asyncio.run(Supervisor(engine, "a-model", folder).start())
    return str(failed.value)


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    """Also a process that nobody has waited for is gone."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def child_of(log: Path) -> int:
    return int(log.read_text(encoding="utf-8").split()[-1])


def test_an_engine_is_healthy_when_it_has_started_and_gone_when_it_was_stopped(tmp_path: Path) -> None:
    async def use(engine: Supervisor, url: str) -> None:
        assert url.startswith("http://127.0.0.1:")
        assert engine.alive
        pid = engine.pid
        assert pid is not None
        assert not gone(pid)
        await engine.stop()
        assert not engine.alive
        assert gone(pid)

    with_engine(command("--boot", "0.5"), tmp_path, use)


def test_a_killed_engine_is_seen_to_be_dead_and_starts_again(tmp_path: Path) -> None:
    async def use(engine: Supervisor, url: str) -> None:
        first = engine.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: not engine.alive)
        assert engine.reason() == "the engine was killed by SIGKILL"
        await engine.start()
        assert engine.alive
        assert engine.pid != first

    with_engine(small(), tmp_path, use)


def test_the_end_of_an_engine_is_the_end_of_what_it_started(tmp_path: Path) -> None:
    async def use(engine: Supervisor, url: str) -> None:
        child = child_of(engine.log)
        assert not gone(child)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: gone(child))

    with_engine(small(), tmp_path, use)


def test_an_engine_that_does_not_hear_is_killed(tmp_path: Path) -> None:
    async def use(engine: Supervisor, url: str) -> None:
        pid, child = engine.pid, child_of(engine.log)
        assert pid is not None
        begun = time.monotonic()
        await engine.stop()
        assert time.monotonic() - begun < 5.0
        assert gone(pid)
        assert gone(child)

    with_engine(small(manner="stubborn"), tmp_path, use, stop_seconds=0.3)


def test_an_engine_whose_guard_is_killed_is_ended_all_the_same(tmp_path: Path) -> None:
    async def use(engine: Supervisor, url: str) -> None:
        pid = engine.pid
        assert pid is not None
        psutil.Process(pid).parent().kill()
        await until(lambda: not engine.alive)
        await engine.stop()
        await until(lambda: gone(pid))

    with_engine(small(), tmp_path, use)


def frozen_guard(engine: Supervisor) -> psutil.Process:
    """As of an engine that hangs in a driver: the guard waits for its end."""
    guard = psutil.Process(engine.pid).parent()
    assert guard is not None
    guard.suspend()
    return guard


def test_an_engine_whose_guard_hangs_is_ended_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowtide_worker.engine, "_SPOKEN_ALL_SECONDS", 0.3)

    async def use(engine: Supervisor, url: str) -> None:
        guard, pid = frozen_guard(engine), engine.pid
        assert pid is not None
        await asyncio.wait_for(engine.stop(), PATIENCE)
        assert gone(guard.pid)
        assert gone(pid)

    with_engine(small(), tmp_path, use, stop_seconds=0.3)


def test_an_engine_that_cannot_be_ended_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lowtide_worker.engine, "_SPOKEN_ALL_SECONDS", 0.3)

    async def use(engine: Supervisor, url: str) -> None:
        frozen_guard(engine)
        pid, begun = engine.pid, time.monotonic()
        assert pid is not None
        try:
            with monkeypatch.context() as deaf:
                # The system's own call, which comes to nothing while a driver holds the process.
                deaf.setattr(os, "killpg", lambda *_: None)
                with pytest.raises(EngineFailed, match=f"cannot be ended: process {pid}"):
                    await asyncio.wait_for(engine.start(), PATIENCE)
            assert time.monotonic() - begun < 10
            assert not engine.alive
            await engine.stop()
        finally:
            os.killpg(pid, signal.SIGKILL)

    with_engine(small(manner="stubborn"), tmp_path, use, stop_seconds=0.3)


def test_a_killed_worker_takes_its_engine_along(tmp_path: Path) -> None:
    worker = textwrap.dedent("""
        import asyncio, json, sys
        from pathlib import Path
        from lowtide_worker import layout
        from lowtide_worker.engine import Supervisor
        async def work():
            engine = Supervisor(layout.Engine(command=tuple(json.loads(sys.argv[1]))), "m", Path(sys.argv[2]))
            await engine.start()
            print(engine.pid, flush=True)
            await asyncio.sleep(600)
        asyncio.run(work())
    """)
    started = subprocess.Popen(
        [sys.executable, "-c", worker, json.dumps(small()), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert not gone(pid)
        child = child_of(tmp_path / "engine.log")
    finally:
        started.kill()
        started.wait()
    asyncio.run(until(lambda: gone(pid) and gone(child)))


def test_an_engine_that_ends_at_once_says_how_and_where_to_look(tmp_path: Path) -> None:
    said = failure_of(settings(failing(SECRET, 3)), tmp_path)

    assert "ended with code 3" in said
    assert str(tmp_path / "engine.log") in said
    assert SECRET in (tmp_path / "engine.log").read_text(encoding="utf-8")
    assert SECRET not in said


def test_the_command_gets_its_model_and_environment(tmp_path: Path) -> None:
    says = "import os, sys; sys.exit(sys.argv[1] + ' ' + os.environ['FLAVOUR'])"
    words = (sys.executable, "-c", says, "--model={model}")

    failure_of(layout.Engine(command=words, environment={"FLAVOUR": "vanilla"}, boot_seconds=PATIENCE), tmp_path)

    assert (tmp_path / "engine.log").read_text(encoding="utf-8") == "--model=a-model vanilla\n"


def test_an_engine_without_memory_says_so_in_words_of_ours(tmp_path: Path) -> None:
    log = f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. Prompt: {SECRET}"

    said = failure_of(settings(failing(log)), tmp_path)

    assert ": out of GPU memory; its log is" in said
    assert SECRET not in said


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = failure_of(settings(("no-such-engine", "--port", "{port}")), tmp_path)

    assert "'no-such-engine'" in said
    assert "no such program" in said


def test_an_engine_that_never_gets_well_is_given_up_and_ended(tmp_path: Path) -> None:
    said = failure_of(settings(command("--boot", "600"), boot_seconds=1.0), tmp_path)

    assert "not healthy after 1 s" in said
    assert "GET /health gives" in said
    assert not [one for one in psutil.Process().children(recursive=True) if "--boot" in " ".join(one.cmdline())]


def test_a_port_that_was_taken_in_between_is_not_the_end(tmp_path: Path) -> None:
    once = tmp_path / "once"
    first_taken = textwrap.dedent("""
        import os, pathlib, sys
        once = pathlib.Path(sys.argv[1])
        if once.exists():
            os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
        once.touch()
        sys.exit("[Errno 98] Address already in use")
    """)

    async def use(engine: Supervisor, url: str) -> None:
        assert once.exists()
        assert engine.alive

    with_engine((sys.executable, "-c", first_taken, str(once), *small()[1:]), tmp_path, use)


def test_an_engine_at_an_address_is_waited_for_and_left_alone(tmp_path: Path) -> None:
    with running("--boot", "0.5") as served:

        async def work() -> None:
            engine = Supervisor(layout.Engine(url=f"{served.url}/v1/", boot_seconds=PATIENCE), "a-model", tmp_path)
            assert not engine.alive
            assert await engine.start() == served.url
            assert engine.alive
            assert engine.pid is None
            await engine.stop()
            assert not engine.alive
            assert await engine.start() == served.url

        asyncio.run(work())
        assert not served.asked()


def test_an_address_where_nobody_is_is_named(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        said = failure_of(layout.Engine(url=url, boot_seconds=0.5), tmp_path)

    assert url in said
    assert "connection refused" in said


@pytest.mark.parametrize("engine", [layout.Engine(), layout.Engine(command=("x",), url="http://x")])
def test_an_engine_has_a_command_or_an_address(engine: layout.Engine, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either a command or a url"):
        Supervisor(engine, "a-model", tmp_path)


def test_the_log_does_not_grow_without_end_and_holds_nobody_up(tmp_path: Path) -> None:
    noisy = "import sys\nfor at in range(50): print(at, 'x' * 100_000, 'the end' * (at == 49), flush=True)"
    guarding = textwrap.dedent("""
        import sys
        from pathlib import Path
        from lowtide_worker import guard
        guard.KEPT_BYTES = 1_000_000
        sys.exit(guard.main(Path(sys.argv[1]), 1.0, sys.argv[2:]))
    """)
    log = tmp_path / "engine.log"

    with subprocess.Popen(
        [sys.executable, "-c", guarding, str(log), sys.executable, "-c", noisy],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as guarded:
        assert guarded.wait(60) == 0

    kept = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(kept) == 2
    assert sum(kept) < 2_200_000
    assert log.read_bytes().endswith(b"the end\n")


def test_words_of_the_command_are_filled_in_and_json_is_left_alone() -> None:
    words = ("serve", "{model}", "--port={port}", '{"temperature": {"x": 1}}', "{other}")

    assert filled(words, model="org/{port}", port=8000) == [
        "serve",
        "org/{port}",
        "--port=8000",
        '{"temperature": {"x": 1}}',
        "{other}",
    ]


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_a_base_url_may_be_given_as_clients_have_it(url: str) -> None:
    assert layout.base_of(url) == "http://h:1"


@pytest.mark.parametrize(
    ("log", "meaning"),
    [
        (f"INFO processed {SECRET}", ""),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "its cache"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "a CUDA error"),
        ("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory", "out of GPU memory"),
        ("Traceback ...\nModuleNotFoundError: No module named 'vllm'\n", "package is missing"),
        ("WARNING ImportError: no flash attention, going on without\nINFO serving\n", ""),
        ("vllm: error: unrecognized arguments: --max-modle-len 4096", "argument"),
    ],
)
def test_what_a_log_tells_is_named_in_words_of_ours(log: str, meaning: str) -> None:
    named = known_failure(log.encode())

    assert meaning in named
    assert bool(named) == bool(meaning)
