"""What `POST /_emulator/settings {"bedrock": {...}}` can change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lowtide.emulators.bedrock.models import KNOWN, Model

_GB = 1_000_000_000
_Record = TypeVar("_Record", "Latency", "Quotas", Model)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a job stays in each state, in emulated seconds. Records are worked off evenly over `in_progress`."""

    submitted: float = 0.05
    validating: float = 0.1
    scheduled: float = 0.1
    in_progress: float = 0.4
    stopping: float = 0.2


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits of an account in one region. `minimum_records` None is each model's own."""

    jobs: int = 20
    custom_jobs: int = 3
    records_per_file: int = 50_000
    records_per_job: int = 50_000
    minimum_records: int | None = None
    file_bytes: int = _GB
    job_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How this Bedrock behaves.

    `visible_after`: seconds for which a new job is missing from Get and List. `counter_lag`: by how many seconds the
    counters of a running job are late. `shuffle`: answers are in another order than records. `expired_rows`: what
    becomes of records for which there was no time, `listed` with an error or `missing`. `null_members`: Converse
    answers spell out every member of a union. `denied`: actions that nobody may do (`iam:PassRole`, `s3:GetObject`
    of the job's role, `servicequotas:ListServiceQuotas`, ...). `unique_names`: a job's name may be used once.
    `tools_in_batch`, `cache_points_in_batch`, `structured_in_batch`: whether rows may ask for that.
    `on_demand_per_minute`: calls of Converse and InvokeModel by model; None is no limit.
    """

    latency: Latency = Latency()
    quotas: Quotas = Quotas()
    models: Mapping[str, Model] = field(default_factory=lambda: KNOWN)
    profiles: Mapping[str, str] = field(default_factory=dict)
    visible_after: float = 0.0
    counter_lag: float = 0.1
    shuffle: bool = True
    expired_rows: str = "listed"
    null_members: bool = True
    denied: frozenset[str] = frozenset()
    unique_names: bool = False
    tools_in_batch: bool = False
    cache_points_in_batch: bool = False
    structured_in_batch: bool = True
    on_demand_per_minute: int | None = None

    def changed(self, changes: Mapping[str, object]) -> Settings:
        """These settings with the given ones in their place; nested mappings are merged. Raises ValueError."""
        values: dict[str, Any] = {}
        for name, value in changes.items():
            match name, value:
                case "latency", Mapping():
                    values[name] = _merged(self.latency, value)
                case "quotas", Mapping():
                    values[name] = _merged(self.quotas, value)
                case "models", Mapping():
                    values[name] = {**self.models, **{id_: _model(id_, given) for id_, given in value.items()}}
                case "profiles", Mapping():
                    values[name] = {**self.profiles, **{str(key): str(of) for key, of in value.items()}}
                case "denied", list() | tuple():
                    values[name] = frozenset(map(str, value))
                case "expired_rows", "listed" | "missing":
                    values[name] = value
                case "on_demand_per_minute", None | int():
                    values[name] = value
                case (("visible_after" | "counter_lag"), int() | float()):
                    values[name] = float(value)
                case _ if isinstance(value, bool) and isinstance(getattr(self, name, None), bool):
                    values[name] = value
                case _:
                    raise ValueError(f"`{name}` is no setting, or cannot be {value!r}")
        return dataclasses.replace(self, **values)

    def shown(self) -> Mapping[str, object]:
        """The settings as JSON."""
        return {**dataclasses.asdict(self), "denied": sorted(self.denied), "models": dict(self.models)}


def _model(model_id: str, given: object) -> Model:
    if not isinstance(given, Mapping):
        raise ValueError(f"a model is a mapping: {given!r}")
    known = KNOWN.get(model_id, Model(model_id, model_id, "anthropic"))
    return _merged(known, {"id": model_id, **given})


def _merged(record: _Record, changes: Mapping[str, Any]) -> _Record:
    unknown = set(changes) - {known.name for known in dataclasses.fields(record)}
    if unknown:
        raise ValueError(f"not settings: {sorted(unknown)}")
    for name, value in changes.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
            raise ValueError(f"`{name}` is not negative: {value}")
    return dataclasses.replace(record, **changes)
