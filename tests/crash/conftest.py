"""Two scripts that fork the processes to be killed, started once for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.driver import Drivers


def _started() -> Iterator[Drivers]:
    started = Drivers()
    yield started
    started.end()


drivers = pytest.fixture(_started, scope="module", name="drivers")
rivals = pytest.fixture(_started, scope="module", name="rivals")
