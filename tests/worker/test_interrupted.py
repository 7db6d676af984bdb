"""Workers whose machine will be taken away: what the clouds announce, and the time until they have left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import engine
from servers.metadata import COMPUTE, IDENTITY, metadata
from support.fleets import Yard, echoed, wait_until, yard

from lowtide_worker import layout


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Yard]:
    with yard(tmp_path) as made:
        yield made


@pytest.mark.parametrize(("kind", "name"), [("ec2", IDENTITY["instanceId"]), ("azure", COMPUTE["vmId"])])
def test_a_worker_leaves_within_twenty_seconds_of_a_notice_and_loses_no_answer(
    home: Yard, kind: str, name: str
) -> None:
    with engine.running("--latency", "0.1") as server, metadata(kind) as cloud:
        # Parts would not be due for long: what is kept is kept because the worker leaves in order.
        home.fleet(layout.Engine(url=server.url), part_rows=1000, part_seconds=60.0)
        home.shard("s00001-a1", [f"record {number}" for number in range(2000)])
        worker = home.worker({f"LOWTIDE_METADATA_URL_{kind.upper()}": cloud.url})
        wait_until(lambda: len(server.answered()) > 20, "some answers")
        noticed = time.monotonic()
        cloud.interrupt() if kind == "ec2" else cloud.schedule("Preempt", COMPUTE["name"])
        assert worker.wait(30) == layout.RETRY, home.said()
        took = time.monotonic() - noticed
        answered = server.answered()

    assert took < 20
    assert {echoed(line) for line in home.answers("s00001-a1").values()} == set(answered)
    (beat,) = home.beats()
    assert (beat.state, beat.exit_code, beat.instance) == ("ended", layout.RETRY, name)
    assert beat.region
    assert beat.zone
    assert beat.up_before is None or beat.up_before > 0
