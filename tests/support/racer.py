"""One of several processes that write one journal on a disk at the same time: racer.py ROOT OWNER WHAT NUMBER.

`count` appends so many entries, `claim` tries to own so many shards; the shards that were won are printed. The race
begins when the file ROOT/go appears.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lowtide import events as e
from lowtide.connectors.stores import open_store
from lowtide.journal import Journal, Superseded


def main(root: str, owner: str, what: str, number: int) -> None:
    mine = Journal(open_store(f"{root}/store"), "runs/r", owner, snapshot_every=7)
    (Path(root) / f"{owner}.ready").touch()
    while not (Path(root) / "go").exists():
        time.sleep(0.001)
    mine.refresh()
    won = []
    for step in range(1, number + 1):
        if what == "count":
            mine.append(e.Requested(at=float(step)))
            continue
        intent = e.Submitting(at=0.0, shard=step, attempt=1, token="t", owner=owner, expires=600.0)
        try:
            mine.append(intent)
        except Superseded:
            mine.refresh()
        else:
            won.append(step)
    print(json.dumps(won))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
