"""Word that this machine will be taken away, and what the machine is: from signals and the clouds' metadata services.

Sources: AWS, "Spot Instance interruption notices" and "EC2 instance rebalance recommendations" (IMDSv2); Microsoft,
"Azure Metadata Service: Scheduled Events for Linux VMs". Both are asked on their link-local address, and which of them
answers is found out when the worker starts. `LOWTIDE_METADATA_URL_EC2` and `LOWTIDE_METADATA_URL_AZURE` name another
address of a service that speaks like them, or `none`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import msgspec

from lowtide_worker.engine import TIMEOUTS

EC2 = "LOWTIDE_METADATA_URL_EC2"
AZURE = "LOWTIDE_METADATA_URL_AZURE"

_LINK_LOCAL = "http://169.254.169.254"
_OFF = "none"
_FOUND_SECONDS = 1.5
_ANSWER_SECONDS = 5.0
_EC2_EVERY = 5.0
_AZURE_EVERY = 1.0

# The first call turns the service on for this machine, and takes up to two minutes.
_AZURE_FIRST_SECONDS = 150.0

_LIFE_SECONDS = "21600"
_AZURE_VERSION, _AZURE_EVENTS_VERSION = "2021-02-01", "2020-07-01"
_TAKEN = frozenset({"Preempt", "Terminate"})

# What is at these addresses need not be a metadata service: its token may be no header, its document no text.
_FAILURES = (aiohttp.ClientError, OSError, *TIMEOUTS, msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True)
class Machine:
    """What is known of the machine; "" where nobody says. `ec2` and `azure` are the services that answered."""

    instance: str = ""
    instance_type: str = ""
    region: str = ""
    zone: str = ""
    up_before: float | None = None
    name: str = ""
    ec2: str = ""
    azure: str = ""


class _Identity(msgspec.Struct, rename="camel"):
    instance_id: str
    instance_type: str = ""
    region: str = ""
    availability_zone: str = ""


class _Compute(msgspec.Struct, rename="camel"):
    name: str
    vm_id: str = ""
    vm_size: str = ""
    location: str = ""
    zone: str = ""


class _Instance(msgspec.Struct):
    compute: _Compute


class _Action(msgspec.Struct):
    action: str = "terminate"
    time: str = ""


class _Event(msgspec.Struct, rename="pascal"):
    event_type: str = ""
    resources: list[str] = []
    not_before: str = ""


class _Events(msgspec.Struct, rename="pascal"):
    events: list[_Event] = []


async def look_around(environ: Mapping[str, str], uptime: Path = Path("/proc/uptime")) -> Machine:
    """What the metadata services say of this machine: within two seconds, and never raises.

    A service that is to be asked, but has no answer in that time, is taken for absent.
    """
    async with _session() as session:
        ec2, azure = await asyncio.gather(
            _on_ec2(session, _address(environ, EC2)), _on_azure(session, _address(environ, AZURE))
        )
    return replace(ec2 or azure or Machine(), up_before=_up(uptime))


class Watch:
    """Waits for the first notice. SIGTERM and SIGINT are heard from when it is made, inside a running loop.

    A later SIGTERM changes nothing, since the worker is on its way already; a later SIGINT interrupts at once. `heard`
    is called at the first signal, even when nobody waits.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        ec2_every: float = _EC2_EVERY,
        azure_every: float = _AZURE_EVERY,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._machine, self._ec2_every, self._azure_every, self._tell = machine, ec2_every, azure_every, heard
        self._signal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._heard, number)

    async def wait(self) -> str:
        """The reason to go, in a few words."""
        async with _session() as session:
            watches: list[Coroutine[None, None, str]] = []
            if self._machine.ec2:
                watches.append(_Ec2(session, self._machine.ec2).watch(self._ec2_every))
            if self._machine.azure:
                watches.append(_watch_azure(session, self._machine, self._azure_every))
            tasks = [asyncio.create_task(watch) for watch in watches]
            try:
                done, _ = await asyncio.wait((self._signal, *tasks), return_when=asyncio.FIRST_COMPLETED)
                return next(iter(done)).result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Let signals do what they did before."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)

    def _heard(self, number: signal.Signals) -> None:
        if not self._signal.done():
            self._tell()
            self._signal.set_result(f"{number.name} was sent")
        if number == signal.SIGINT:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


@dataclass
class _Ec2:
    """EC2's metadata service, version 2: every question carries a token."""

    session: aiohttp.ClientSession
    base: str
    _token: str = field(default="", init=False)

    async def watch(self, every: float) -> str:
        """Wait for word that this spot instance will be interrupted.

        A recommendation to move that stood when the watch began is no reason: the worker before this one went for it,
        and it stands until the machine is taken, which may be hours.
        """
        stood: bool | None = None
        while True:
            with contextlib.suppress(*_FAILURES):
                action = await self.get("/latest/meta-data/spot/instance-action")
                if action is not None:
                    told = msgspec.json.decode(action, type=_Action)
                    return f"EC2 will {told.action} this spot instance at {told.time or 'an unknown time'}"
                advised = await self.get("/latest/meta-data/events/recommendations/rebalance") is not None
                if advised and stood is False:
                    return "EC2 recommends to move off this spot instance"
                stood = advised if stood is None else stood and advised
            await asyncio.sleep(every)

    async def get(self, path: str) -> bytes | None:
        """None where there is nothing, as there is not while no notice is given. Raises one of _FAILURES."""
        for _ in range(2):
            if not self._token:
                await self._renew()
            headers = {"X-aws-ec2-metadata-token": self._token}
            async with self.session.get(self.base + path, headers=headers) as response:
                if response.status == 401:
                    self._token = ""
                    continue
                if response.status == 404:
                    return None
                response.raise_for_status()
                return await response.read()
        raise aiohttp.ClientPayloadError("the metadata service refuses its own token")

    async def _renew(self) -> None:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": _LIFE_SECONDS}
        async with self.session.put(f"{self.base}/latest/api/token", headers=headers) as response:
            response.raise_for_status()
            self._token = await response.text()


async def _watch_azure(session: aiohttp.ClientSession, machine: Machine, every: float) -> str:
    """Wait for word that this machine is preempted or deleted. Events of other machines of its set are listed too."""
    seconds = _AZURE_FIRST_SECONDS
    while True:
        with contextlib.suppress(*_FAILURES):
            path = f"/metadata/scheduledevents?api-version={_AZURE_EVENTS_VERSION}"
            found = msgspec.json.decode(await _ask_azure(session, machine.azure + path, seconds), type=_Events)
            seconds = _ANSWER_SECONDS
            for event in found.events:
                if event.event_type in _TAKEN and machine.name in event.resources:
                    return f"Azure will {event.event_type.lower()} this machine, not before {event.not_before or 'now'}"
        await asyncio.sleep(every)


async def _on_ec2(session: aiohttp.ClientSession, base: str) -> Machine | None:
    if not base:
        return None
    try:
        document = await asyncio.wait_for(
            _Ec2(session, base).get("/latest/dynamic/instance-identity/document"), _FOUND_SECONDS
        )
        if document is None:
            return Machine(ec2=base)
        found = msgspec.json.decode(document, type=_Identity)
    except _FAILURES:
        return None
    return Machine(found.instance_id, found.instance_type, found.region, found.availability_zone, ec2=base)


async def _on_azure(session: aiohttp.ClientSession, base: str) -> Machine | None:
    if not base:
        return None
    try:
        said = await _ask_azure(session, f"{base}/metadata/instance?api-version={_AZURE_VERSION}", _FOUND_SECONDS)
        found = msgspec.json.decode(said, type=_Instance).compute
    except _FAILURES:
        return None
    zone = f"{found.location}-{found.zone}" if found.zone else ""
    return Machine(found.vm_id, found.vm_size, found.location, zone, name=found.name, azure=base)


async def _ask_azure(session: aiohttp.ClientSession, url: str, seconds: float) -> bytes:
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with session.get(url, headers={"Metadata": "true"}, timeout=timeout) as response:
        response.raise_for_status()
        return await response.read()


def _session() -> aiohttp.ClientSession:
    """One that uses no proxy, as metadata services demand."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS), trust_env=False)


def _address(environ: Mapping[str, str], name: str) -> str:
    address = environ.get(name, "") or _LINK_LOCAL
    return "" if address == _OFF else address.rstrip("/")


def _up(uptime: Path) -> float | None:
    try:
        return float(uptime.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
