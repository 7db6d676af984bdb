"""From a job file's section to what workers read: how they work, and which engine they start."""

from __future__ import annotations

from lowtide.job.backends import SpotBackend
from lowtide_worker.layout import Engine, Fleet

VLLM = ("vllm", "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}")
"""The engine where the job file names none (vLLM 0.11: `vllm serve --help`)."""

REQUEST_SECONDS = 600.0
"""For how long one request may take."""


def fleet_of(spec: SpotBackend) -> Fleet:
    """What goes into `fleet.json`."""
    engine = spec.engine
    return Fleet(
        model=spec.model,
        engine=Engine(
            command=() if engine.url else engine.command or VLLM,
            url=(engine.url or "").rstrip("/"),
            health=engine.health,
            environment=dict(engine.environment),
            boot_seconds=engine.boot.total_seconds(),
            hang_seconds=engine.hang.total_seconds(),
            restarts=engine.restarts,
        ),
        # A request that is slow is no engine that hangs.
        request_seconds=min(REQUEST_SECONDS, engine.hang.total_seconds()),
        least=spec.in_flight.least,
        most=spec.in_flight.most,
    )


def asks_natively(spec: SpotBackend) -> bool:
    """Whether requests carry the answer's schema. vLLM heeds it for every model; of other engines nobody knows."""
    if spec.structured_output == "auto":
        return any("vllm" in word for word in fleet_of(spec).engine.command)
    return spec.structured_output == "native"
