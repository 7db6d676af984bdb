"""The engine and the desk in front of it, as a worker goes from shard to shard."""

from __future__ import annotations

from pathlib import Path

from lowtide_worker.asking import HttpDesk
from lowtide_worker.engine import Supervisor
from lowtide_worker.layout import Fleet
from lowtide_worker.ports import Desk, EngineDown, EngineFailed


class EngineBench:
    """Starts the engine when a desk is first asked for. `key` goes with whatever it is asked.

    Raises ValueError for a fleet whose engine cannot be.
    """

    def __init__(self, fleet: Fleet, folder: Path, key: str = "") -> None:
        self._fleet, self._key = fleet, key
        self._engine = Supervisor(fleet.engine, fleet.model, folder, key=key)
        self._desk: HttpDesk | None = None
        self._url = ""
        self._most = 0

    async def desk(self) -> Desk:
        """A desk with all the room of the fleet, before the engine that runs, or a new one. Raises EngineFailed."""
        if self._desk and self._most == self._fleet.most and self._engine.alive:
            return self._desk
        if not self._engine.alive:
            return await self.renew(self._fleet.most)
        return await self._sit_down(self._fleet.most)

    async def renew(self, most: int) -> Desk:
        """A desk for that many at a time, before an engine that was started again.

        Raises EngineFailed; so it does where the engine failed at everything before, and still does.
        """
        broken = self._desk is not None and self._desk.broken
        await self._get_up()
        self._url = await self._engine.start()
        desk = await self._sit_down(most)
        if broken:
            try:
                await desk.prove()
            except EngineDown as error:
                raise EngineFailed(f"{error}, started again or not") from None
        return desk

    def reason(self) -> str:
        """Why the engine is gone, as far as it can be told."""
        return "" if self._engine.alive else self._engine.reason()

    async def close(self) -> None:
        """End the engine."""
        await self._get_up()
        await self._engine.stop()

    async def _sit_down(self, most: int) -> HttpDesk:
        await self._get_up()
        self._most = most
        desk = self._desk = HttpDesk(self._url, self._fleet, alive=lambda: self._engine.alive, most=most, key=self._key)
        return desk

    async def _get_up(self) -> None:
        desk, self._desk = self._desk, None
        if desk:
            await desk.close()
