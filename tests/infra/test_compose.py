"""compose.yaml: Docker Compose takes it, and its commands, ports and health checks fit the programs that it runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from servers.emulators import emulators
from servers.faulty import faulty
from servers.process import free_port

from lowtide import __version__
from lowtide.cli import main

COMPOSE = Path(__file__).parents[2] / "infra" / "compose"
HEALTH = re.compile(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)")
ONCE = "bucket"
SECONDS = 120.0
ENDING_SECONDS = 30.0


def settings() -> dict[str, str]:
    """What .env.example sets."""
    lines = (COMPOSE / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled() -> dict[str, Any]:
    """compose.yaml with the settings of .env.example put in."""
    known = settings()
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda match: known[match[1]], text))
    return dict(found["services"])


def command() -> list[str]:
    """Docker Compose: the plugin, or Debian's program."""
    program = shutil.which("docker-compose")
    if program is not None:
        return [program]
    plugin = ["docker", "compose"]
    docker = shutil.which("docker")
    if docker is None or subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker Compose is not installed: apt-get install docker-compose")
    return plugin


def config(folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in settings()}
    asked = [*command(), "--file", "compose.yaml", "config"]
    return subprocess.run(asked, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    for name in ("compose.yaml", "Dockerfile", ".env.example"):
        shutil.copy(COMPOSE / name, tmp_path)
    shutil.copy(COMPOSE / ".env.example", tmp_path / ".env")
    return tmp_path


def test_docker_compose_takes_it(stack: Path) -> None:
    ended = config(stack)
    assert ended.returncode == 0, ended.stderr
    assert set(yaml.safe_load(ended.stdout)["services"]) == set(filled())


def test_docker_compose_sees_a_misspelt_key(stack: Path) -> None:
    text = (stack / "compose.yaml").read_text(encoding="utf-8")
    (stack / "compose.yaml").write_text(text.replace("healthcheck:", "healthchecks:", 1), encoding="utf-8")
    assert config(stack).returncode != 0


def test_without_settings_it_says_what_to_do(stack: Path) -> None:
    (stack / ".env").unlink()
    ended = config(stack)
    assert ended.returncode != 0
    assert "copy .env.example to .env" in ended.stderr


def test_every_setting_is_used_and_every_one_that_is_used_is_set() -> None:
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) == set(settings()) - {"COMPOSE_PROJECT_NAME"}


def test_a_secret_is_never_in_the_file_and_says_that_it_is_for_local_use() -> None:
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    for name, value in settings().items():
        if re.search(r"PASSWORD|AUTH|SECRET|ACCESS_KEY", name):
            assert "local-use-only" in value, name
            assert f"${{{name}:?" in text, name
    for setting in re.findall(r"^ +(\w*(?:PASSWORD|KEY|AUTH_STRING)\w*): (.+)$", text, re.MULTILINE):
        assert setting[1].startswith("${"), setting


def test_images_are_pinned_and_ours_is_of_this_version() -> None:
    images = {service["image"] for service in filled().values()}
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image), image
        assert "latest" not in image
    assert f"lowtide:{__version__}" in images
    base = re.findall(r"^FROM (\S+)$", (COMPOSE / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert all(re.search(r":\d", image) for image in base)


def test_nothing_can_be_reached_from_another_machine() -> None:
    ports = [port for service in filled().values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200", "127.0.0.1:8333:8333"]


def test_every_service_says_whether_it_is_well() -> None:
    services = filled()
    assert {name for name, service in services.items() if "healthcheck" not in service} == {ONCE}
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed == ONCE else "service_healthy"
            assert how == {"condition": wanted}, f"{name} on {needed}"


def health(service: str) -> tuple[int, str]:
    """Port and path that a service's health check asks."""
    [(port, path)] = HEALTH.findall(" ".join(filled()[service]["healthcheck"]["test"]))
    return int(port), path


def prefect_options(*names: str) -> set[str]:
    asked = [sys.executable, "-m", "prefect", *names, "--help"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout
    return set(re.findall(r"--[a-z-]+", said))


@pytest.mark.parametrize("service", ["server", "worker"])
def test_prefect_knows_the_options(service: str) -> None:
    words = filled()[service]["command"]
    names = words[1:3]
    given = {word for word in words if word.startswith("--")}
    assert given
    # --help cuts long names short.
    known = prefect_options(*names)
    assert all(any(option.startswith(name) or name.startswith(option) for option in known) for name in given)


def test_lowtide_knows_the_options_of_the_emulators() -> None:
    relayed, _, ours = filled()["emulators"]["command"][2].partition("exec lowtide ")
    name, *options = shlex.split(ours)
    found = main.get_command(click.Context(main), name)
    assert found is not None
    context = found.make_context(name, options)
    # What socat listens on is what the health check and the worker ask; what it passes on to is where we listen.
    listens = re.findall(r"TCP-LISTEN:(\d+).* TCP:127\.0\.0\.1:(\d+)", relayed)
    assert listens == [(str(health("emulators")[0]), str(context.params["port"]))]
    for setting, value in filled()["worker"]["environment"].items():
        if "emulators" in value:
            assert value.startswith(f"http://emulators:{health('emulators')[0]}"), setting


def test_the_emulators_answer_where_their_health_is_asked() -> None:
    with (
        emulators() as served,
        urllib.request.urlopen(served.url + health("emulators")[1], timeout=60) as answer,  # noqa: S310 - loopback
    ):
        assert answer.status == 200


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(words: list[str], **environ: str) -> subprocess.Popen[bytes]:
        full = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), **environ}
        with (tmp_path / "output.txt").open("ab") as output:
            processes.append(
                subprocess.Popen([sys.executable, "-m", *words], env=full, stdout=output, stderr=output, cwd=tmp_path)
            )
        return processes[-1]

    yield start
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            # Prefect's worker with its health check does not always end when it is told to. Compose kills it then.
            process.kill()
            process.wait()


def well(port: int, path: str) -> bool:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.3)
    return False


@pytest.mark.slow
def test_server_and_worker_are_well_with_the_commands_and_secrets_of_the_stack(started: Any, tmp_path: Path) -> None:
    services, ports = filled(), {"4200": str(free_port()), "8080": str(free_port())}
    words = [ports.get(word, word) for word in services["server"]["command"]]
    words[words.index("--host") + 1] = "127.0.0.1"
    asked = {
        name: value for name, value in services["server"]["environment"].items() if name.endswith("API_AUTH_STRING")
    }
    assert len(asked) == 1
    started(words, **asked, PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{tmp_path}/prefect.db")
    port, path = health("server")
    assert well(int(ports[str(port)]), path)

    environment = dict(services["worker"]["environment"])
    environment["PREFECT_API_URL"] = environment["PREFECT_API_URL"].replace("server:4200", f"127.0.0.1:{ports['4200']}")
    environment["PREFECT_WORKER_WEBSERVER_PORT"] = ports["8080"]
    words = list(services["worker"]["command"])
    template = words[words.index("--base-job-template") + 1]
    assert f"--file process.json > {template}" in (COMPOSE / "Dockerfile").read_text(encoding="utf-8")
    words[words.index(template)] = str(COMPOSE.parent / "prefect" / "process.json")
    worker = started(words, **environment)
    port, path = health("worker")
    assert well(int(ports[str(port)]), path)
    # The worker has made the work pool with our template, past the server's password.
    listed = subprocess.run(
        [sys.executable, "-m", "prefect", "work-pool", "inspect", "lowtide"],
        env={**os.environ, **environment, "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "PREFECT_LOGGING_EXTRA_LOGGERS" in listed
    assert worker.poll() is None


def test_the_bucket_is_made_once_and_found_the_second_time(ministack_url: str) -> None:
    words = filled()[ONCE]["command"]
    assert words[:2] == ["python", "-c"]
    bucket = settings()["BUCKET"]
    with faulty(ministack_url) as proxy:
        # By a name, as in the stack: boto3 would put the bucket in front of it.
        url = proxy.url.replace("127.0.0.1", "localhost")
        environment = {**os.environ, **filled()[ONCE]["environment"], "AWS_ENDPOINT_URL_S3": url}
        for _ in range(2):
            subprocess.run([sys.executable, *words[1:]], env=environment, timeout=120, check=True)
        assert [seen for seen in proxy.seen if seen.startswith("PUT")] == [f"PUT /{bucket}"]
