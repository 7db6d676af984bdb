"""One emulator for all tests of faults, as new for each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.scene import BACKENDS, SPEED, SPOT, Scene, environment, make_bucket, write_job
from servers.emulators import Emulator, emulators
from servers.keyed import keyed

Setting = Callable[..., Scene]


@pytest.fixture(scope="session")
def running(moto_url: str) -> Iterator[Emulator]:
    with emulators(s3_url=moto_url, speed=SPEED) as found:
        yield found


@pytest.fixture(scope="session")
def engine(running: Emulator) -> Iterator[str]:
    """The emulator as an engine for workers."""
    with keyed(running.url) as url:
        yield url


@pytest.fixture
def setting(
    running: Emulator,
    moto_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Setting]:
    """`setting(backend, faults)`: a scene with these faults."""

    def make(backend: str, *rules: dict[str, object], seed: int = 0, **job: object) -> Scene:
        bucket = f"faults-{uuid.uuid4().hex}"
        if backend == "bedrock":
            make_bucket(moto_url, bucket)
        if backend == SPOT:
            job["engine"] = request.getfixturevalue("engine")
            monkeypatch.setenv("LOWTIDE_SPOT_DIR", str(tmp_path / "slots"))
        for name, value in environment(backend, running.url, moto_url).items():
            monkeypatch.setenv(name, value)
        running.settings(
            bedrock={"latency": {"submitted": 5, "validating": 5, "scheduled": 5, "in_progress": 20, "stopping": 10}},
            openai={
                "validating_seconds": 5,
                "processing_seconds": 20,
                "finalizing_seconds": 5,
                "cancelling_seconds": 10,
                "azure_usage": True,
            },
        )
        running.faults(rules, seed=seed)
        scene = Scene(backend, running, write_job(tmp_path / "job", backend, bucket=bucket, **job))
        scene.documents = job.get("documents", scene.documents)
        return scene

    running.reset()
    yield make
    running.reset()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
