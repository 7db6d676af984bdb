"""The emulators as a process, with S3 beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulators.desk import Desk, new_desk
from servers.emulators import Emulator, emulators

# Fast, and long enough for each state to be seen by who polls without a pause.
QUICK = {"submitted": 0.03, "validating": 0.03, "scheduled": 0.03, "in_progress": 0.1, "stopping": 0.05}


@pytest.fixture(scope="session")
def running_emulator(moto_url: str) -> Iterator[Emulator]:
    """One process for all tests, with moto for S3."""
    with emulators(s3_url=moto_url) as running:
        yield running


@pytest.fixture
def emulator(running_emulator: Emulator) -> Iterator[Emulator]:
    """The process, as new for each test."""
    running_emulator.reset()
    yield running_emulator
    running_emulator.reset()


@pytest.fixture
def desk(emulator: Emulator, moto_url: str) -> Desk:
    """Bedrock and S3, ready for a job, which is quick."""
    emulator.settings(bedrock={"latency": QUICK})
    return new_desk(emulator, moto_url)
