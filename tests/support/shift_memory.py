"""Work at one large shard with a desk that answers at once: `shift_memory.py FOLDER ROWS`.

FOLDER holds requests.jsonl. Prints the process's memory in MB when a fifth of the rows was answered, and at the end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import psutil

from lowtide_worker import layout
from lowtide_worker.beats import Account, Beats
from lowtide_worker.claims import Claims, Held
from lowtide_worker.notices import Machine
from lowtide_worker.ports import Desk
from lowtide_worker.stores import open_folder
from lowtide_worker.work import Shift

_BODY = {
    "choices": [{"message": {"content": "an answer " * 30}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 9},
}


class _Named(msgspec.Struct):
    custom_id: str


class Instant:
    """A desk that answers after a turn of the event loop, and a bench with no engine."""

    room = 64

    def __init__(self, rows: int) -> None:
        self._fifth = rows // 5
        self._asked = 0
        self.early = 0.0

    async def ask(self, line: bytes) -> bytes:
        self._asked += 1
        if self._asked == self._fifth:
            self.early = memory()
        await asyncio.sleep(0)
        name = msgspec.json.decode(line, type=_Named).custom_id
        response = {"status_code": 200, "body": _BODY}
        return msgspec.json.encode({"custom_id": name, "response": response, "error": None})

    async def desk(self) -> Desk:
        return self

    async def renew(self, most: int) -> Desk:
        return self

    def reason(self) -> str:
        return ""


def memory() -> float:
    return psutil.Process().memory_info().rss / 1e6


async def main(root: Path, rows: int) -> None:
    shard, uri = "s00001-a1", (root / "fleet").as_uri()
    (root / "fleet").mkdir()
    requests = root / "requests.jsonl"
    task = layout.Task(requests=requests.as_uri(), records=rows, size=requests.stat().st_size)
    folder = open_folder(uri, {})
    await folder.put(layout.shard_path(shard, layout.TASK), msgspec.json.encode(task))
    fleet = layout.Fleet(model="m", engine=layout.Engine(url="http://127.0.0.1:1"))
    beats = Beats(folder, "w", fleet.beat_seconds, Account(), Machine(), "")
    claims = Claims(folder, "w", fleet.lease_seconds)
    bench = Instant(rows)
    await Shift(folder, fleet, Held(shard, False, 1), claims, bench, beats, asyncio.Event()).run()
    late = memory()
    end = msgspec.json.decode((await folder.get(layout.shard_path(shard, layout.END))).data, type=layout.End)
    if end.answered != rows:
        raise RuntimeError(f"{end.answered} of {rows} rows were answered: {end.reason}")
    print(bench.early, late)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.flush()
    # As the worker ends: a thread of obstore's that is still at work aborts an interpreter that is being taken down.
    os._exit(0)
