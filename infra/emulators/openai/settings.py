"""What can be set while the emulator runs: how long things take, which models and deployments there are, quotas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lowtide.emulators.openai.rules import BATCH_SKUS, MODELS

_MERGED = ("deployments", "resources", "enqueued_tokens")


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model under a name of the user's own, on Azure.

    `enqueued_tokens` is its batch quota; None: the model's. `tokens_per_minute` is what it answers synchronously, None:
    anything; `spillover` names the deployment that answers beyond that.
    """

    model: str
    sku: Literal["globalbatch", "datazonebatch", "globalstandard", "standard", "provisioned"] = "globalbatch"
    enqueued_tokens: int | None = None
    tokens_per_minute: int | None = None
    spillover: str | None = None

    @property
    def is_batch(self) -> bool:
        """Whether batches are its work; what is not answers synchronous calls instead."""
        return self.sku in BATCH_SKUS


class Resource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One Azure resource, reached below `/azure/<name>/`. None stands for what the settings say of all."""

    deployments: dict[str, Deployment] | None = None
    fail_fast: bool | None = None


def _deployments() -> dict[str, Deployment]:
    named = {model: Deployment(model, "globalstandard") for model in MODELS}
    return named | {f"{model}-batch": Deployment(model) for model in MODELS}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings. Times are in seconds of the emulator's clock.

    `file_seconds` is how long an upload stays `pending`, `visible_after` how long a new batch is missing from
    listings. `fail_fast`: on Azure, a batch over quota is refused when it is made, and not failed afterwards.
    `empty_error_file`: what Azure gives for the error file of a batch without errors. `upper_case` and `iso_times`:
    Azure's statuses and times as its older samples show them. `azure_usage`: Azure tells a batch's usage as well.
    `max_requests`, `max_file_bytes`, `max_files` and `enqueued_tokens` (by model) take the place of the real limits.
    """

    validating_seconds: float = 0.2
    processing_seconds: float = 0.4
    finalizing_seconds: float = 0.2
    cancelling_seconds: float = 0.3
    file_seconds: float = 0.0
    visible_after: float = 0.0
    fail_fast: bool = False
    empty_error_file: Literal["file", "blank", "null"] = "file"
    upper_case: bool = False
    iso_times: bool = False
    azure_usage: bool = False
    max_requests: int | None = None
    max_file_bytes: int | None = None
    max_files: int | None = None
    enqueued_tokens: dict[str, int] = msgspec.field(default_factory=dict)
    models: list[str] = msgspec.field(default_factory=lambda: list(MODELS))
    deployments: dict[str, Deployment] = msgspec.field(default_factory=_deployments)
    resources: dict[str, Resource] = msgspec.field(default_factory=dict)

    def deployments_of(self, resource: str) -> Mapping[str, Deployment]:
        """The deployments of one Azure resource, by name."""
        own = self.resources.get(resource)
        return self.deployments if own is None or own.deployments is None else own.deployments

    def fails_fast(self, resource: str) -> bool:
        """Whether that resource refuses a batch over quota when it is made."""
        own = self.resources.get(resource)
        return self.fail_fast if own is None or own.fail_fast is None else own.fail_fast

    def changed(self, by: Mapping[str, object]) -> Settings:
        """These settings with some of them changed; mappings are merged by their keys. Raises ValueError."""
        now: dict[str, Any] = msgspec.to_builtins(self)
        for name, value in by.items():
            merged = name in _MERGED and isinstance(value, Mapping)
            now[name] = {**now[name], **value} if merged and isinstance(value, Mapping) else value
        try:
            return msgspec.convert(now, Settings)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
