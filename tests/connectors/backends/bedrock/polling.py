"""A process that polls a batch on demand and may be killed: `python polling.py ROOT BATCH SLICE_SECONDS`.

Says that it is ready, begins when it is sent a line, and prints each state as a line.
"""

from __future__ import annotations

import os
import sys

from lowtide.connectors.backends.bedrock.connection import connect
from lowtide.connectors.backends.bedrock.ondemand import Lane
from lowtide.connectors.stores import open_store


def main(root: str, batch: str, seconds: str) -> None:
    aws = connect("us-east-1", os.environ)
    lane = Lane(
        open_store(root), aws, "anthropic.claude-3-haiku-20240307-v1:0", "converse", slice_seconds=float(seconds)
    )
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        status = lane.poll(batch)
        print(status.outcome or status.provider_state, flush=True)
        if status.outcome is not None:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
