"""Word that a machine will be taken, from servers as strict as the clouds' own."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.metadata import COMPUTE, IDENTITY, Metadata, metadata
from servers.threaded import answering

from lowtide_worker.notices import AZURE, EC2, Machine, Watch, look_around

QUICK = 0.05
PATIENCE = 20.0


@pytest.fixture
def ec2() -> Iterator[Metadata]:
    with metadata("ec2") as service:
        yield service


@pytest.fixture
def azure() -> Iterator[Metadata]:
    with metadata("azure") as service:
        yield service


def environ(ec2: str = "none", azure: str = "none") -> dict[str, str]:
    return {EC2: ec2, AZURE: azure}


async def waiting(machine: Machine, then: Callable[[], object], rounds: Callable[[], bool]) -> str:
    """The reason of a watch, after `then` was done once `rounds` says that it has looked around before."""
    watch = Watch(machine, ec2_every=QUICK, azure_every=QUICK)
    try:
        reason = asyncio.create_task(watch.wait())
        await until(lambda: reason.done() or rounds())
        assert not reason.done(), reason.result()
        then()
        return await asyncio.wait_for(reason, PATIENCE)
    finally:
        watch.close()


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def looked(service: Metadata, times: int = 2) -> Callable[[], bool]:
    """Whether the notices were asked for that often."""
    paths = ("rebalance", "scheduledevents")
    return lambda: sum(path in request for request in service.seen for path in paths) >= times


def test_an_ec2_machine_says_what_it_is(ec2: Metadata) -> None:
    machine = asyncio.run(look_around(environ(ec2=ec2.url)))

    assert machine.instance == IDENTITY["instanceId"]
    assert machine.instance_type == IDENTITY["instanceType"]
    assert (machine.region, machine.zone) == (IDENTITY["region"], IDENTITY["availabilityZone"])
    assert (machine.ec2, machine.azure) == (ec2.url, "")


def test_an_azure_machine_says_what_it_is(azure: Metadata) -> None:
    machine = asyncio.run(look_around(environ(azure=azure.url)))

    assert (machine.instance, machine.name) == (COMPUTE["vmId"], COMPUTE["name"])
    assert machine.instance_type == COMPUTE["vmSize"]
    assert (machine.region, machine.zone) == ("westeurope", "westeurope-2")
    assert (machine.ec2, machine.azure) == ("", azure.url)


def test_which_cloud_it_is_is_found_out_where_both_have_one_address(ec2: Metadata, azure: Metadata) -> None:
    for service in (ec2, azure):
        machine = asyncio.run(look_around(environ(ec2=service.url, azure=service.url)))

        assert (bool(machine.ec2), bool(machine.azure)) == (service is ec2, service is azure)


@contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and never answers, as a network that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_machine_of_no_cloud_costs_two_seconds_at_most() -> None:
    with silent() as url:
        begun = time.monotonic()
        machine = asyncio.run(look_around(environ(ec2=url, azure=url)))

    assert time.monotonic() - begun < 5.0
    assert (machine.instance, machine.ec2, machine.azure) == ("", "", "")


@contextmanager
def something_else(page: bytes) -> Iterator[str]:
    """A server that answers whatever it is asked with the same page, as networks do that want a sign-in."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with answering(Handler) as url:
        yield url


@pytest.mark.parametrize("page", [b"<html>\n<body>sign in</body>\n</html>\n", b"\xff\xfe", b"[" * 100_000, b""])
def test_what_is_at_the_address_may_be_anything(page: bytes) -> None:
    with something_else(page) as url:
        machine = asyncio.run(look_around(environ(ec2=url, azure=url)))

    assert (machine.instance, machine.ec2, machine.azure) == ("", "", "")


def test_how_long_the_machine_has_been_up_is_read_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("350735.47 234388.90\n", encoding="ascii")

    assert asyncio.run(look_around(environ(), tmp_path / "uptime")).up_before == 350735.47
    assert asyncio.run(look_around(environ(), tmp_path / "missing")).up_before is None


def test_an_interruption_notice_of_ec2_is_heard(ec2: Metadata) -> None:
    async def work() -> str:
        machine = await look_around(environ(ec2=ec2.url))
        return await waiting(machine, ec2.interrupt, looked(ec2))

    assert asyncio.run(work()) == "EC2 will terminate this spot instance at 2026-11-20T08:22:00Z"


def test_a_recommendation_to_move_is_heard_if_it_comes_while_the_worker_works(ec2: Metadata) -> None:
    async def work() -> str:
        def recommend() -> None:
            ec2.rebalance = {"noticeTime": "2026-11-20T08:22:00Z"}

        return await waiting(await look_around(environ(ec2=ec2.url)), recommend, looked(ec2))

    assert "recommends" in asyncio.run(work())


def test_a_recommendation_that_stood_before_keeps_nobody_from_working(ec2: Metadata) -> None:
    # It stands until the machine is taken: whoever left for it again would boot and leave for ever.
    ec2.rebalance = {"noticeTime": "2026-11-20T08:22:00Z"}

    async def work() -> str:
        return await waiting(await look_around(environ(ec2=ec2.url)), ec2.interrupt, looked(ec2, 5))

    assert "terminate" in asyncio.run(work())


def test_a_token_that_is_over_is_renewed(ec2: Metadata) -> None:
    async def work() -> str:
        def forget_and_interrupt() -> None:
            ec2.forget_tokens()
            ec2.interrupt()

        return await waiting(await look_around(environ(ec2=ec2.url)), forget_and_interrupt, looked(ec2))

    assert "terminate" in asyncio.run(work())
    assert sum(request.startswith("PUT") for request in ec2.seen) >= 2


def test_a_metadata_service_that_fails_for_a_while_is_asked_again(ec2: Metadata, azure: Metadata) -> None:
    async def work(service: Metadata, give_notice: Callable[[], object]) -> str:
        machine = await look_around(environ(**{service.kind: service.url}))
        service.failing = 5
        return await waiting(machine, give_notice, lambda: service.failing == 0)

    assert "terminate" in asyncio.run(work(ec2, ec2.interrupt))
    assert "preempt" in asyncio.run(work(azure, lambda: azure.schedule("Preempt", COMPUTE["name"])))


@pytest.mark.parametrize("kind", ["Preempt", "Terminate"])
def test_azure_taking_this_machine_is_heard(azure: Metadata, kind: str) -> None:
    async def work() -> str:
        machine = await look_around(environ(azure=azure.url))
        return await waiting(machine, lambda: azure.schedule(kind, "gpus_1", COMPUTE["name"]), looked(azure))

    assert kind.lower() in asyncio.run(work())


def test_azure_taking_another_machine_of_the_set_is_none_of_ours(azure: Metadata) -> None:
    azure.schedule("Preempt", "gpus_30", "gpus_4")
    azure.schedule("Freeze", COMPUTE["name"])

    async def work() -> str:
        machine = await look_around(environ(azure=azure.url))
        return await waiting(machine, lambda: azure.schedule("Terminate", COMPUTE["name"]), looked(azure, 5))

    assert "terminate" in asyncio.run(work())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_notice(number: signal.Signals) -> None:
    async def work() -> str:
        return await waiting(Machine(), lambda: os.kill(os.getpid(), number), lambda: True)

    assert asyncio.run(work()) == f"{number.name} was sent"


def test_a_signal_before_anybody_waits_is_not_lost() -> None:
    failures: list[dict[str, object]] = []

    async def work() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda loop, failure: failures.append(failure))
        watch = Watch(Machine())
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(QUICK)
            os.kill(os.getpid(), signal.SIGTERM)
            return await asyncio.wait_for(watch.wait(), PATIENCE)
        finally:
            watch.close()

    assert asyncio.run(work()) == "SIGTERM was sent"
    assert not failures


def test_the_first_signal_is_told_even_when_nobody_waits_any_more() -> None:
    told: list[str] = []

    async def work() -> None:
        watch = Watch(Machine(), heard=lambda: told.append("heard"))
        try:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(QUICK)
        finally:
            watch.close()

    asyncio.run(work())
    assert told == ["heard"]


def test_the_stand_in_is_as_strict_as_the_clouds(ec2: Metadata, azure: Metadata) -> None:
    import aiohttp

    async def status(answer: Awaitable[aiohttp.ClientResponse]) -> int:
        return (await answer).status

    async def work() -> list[int]:
        async with aiohttp.ClientSession() as session:
            return [
                await status(session.get(f"{ec2.url}/latest/meta-data/spot/instance-action")),
                await status(session.put(f"{ec2.url}/latest/api/token")),
                await status(session.get(f"{azure.url}/metadata/instance?api-version=2021-02-01")),
                await status(session.get(f"{azure.url}/metadata/instance", headers={"Metadata": "true"})),
            ]

    assert asyncio.run(work()) == [401, 400, 400, 404]
