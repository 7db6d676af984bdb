"""What the tests of flows run against: a Prefect server of their own, and a provider. Both are new for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness
from servers.emulators import Emulator, emulators


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with emulators(speed=2000.0) as served:
        yield served
