"""The two providers and their models, as data: limits, addresses, what a model understands. No decisions here.

Sources, by the letter behind a fact: D documented by the provider, S seen in the SDK (openai 3.52) or in its
docstrings, R reported by users and not verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from lowtide.records import Limits

Call = Literal["chat", "responses"]
LimitKey = Literal["max_completion_tokens", "max_tokens"]

MEGABYTE = 1_000_000
"""Providers do not say which of the two megabytes they mean, so it is the smaller."""

WINDOW: Final = "24h"
"""The only completion window that there is (S)."""

WINDOW_SECONDS: Final = 86_400.0
"""The same: OpenAI's batches expire then (D); Azure's aim at it, and may go on beyond it (D)."""

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Service:
    """One provider's batch API.

    `urls` stand in the lines, `endpoints` in the create call. `input_seconds` and `output_seconds` are when uploaded
    and written files expire, counted from their creation. `tokens` bounds a shard where the job file says nothing.
    `processes_files` says that an upload cannot be used before its status is `processed`.
    """

    backend: str
    provider: str
    records: int
    file_bytes: int
    blob_bytes: int
    input_seconds: int
    output_seconds: int
    live_batches: int
    tokens: int | None
    processes_files: bool
    urls: Mapping[Call, str]
    endpoints: Mapping[Call, str]


# Inputs are of no use once a batch has ended, and hold documents: 14 days is the shortest that Azure takes (D). Outputs
# are what was paid for, and are kept for the longest that either takes, 30 days (D).
_INPUT_SECONDS = 14 * _DAY
_OUTPUT_SECONDS = 30 * _DAY

OPENAI = Service(
    backend="openai-batch",
    provider="openai",
    records=50_000,  # D
    file_bytes=200 * MEGABYTE,  # D
    blob_bytes=0,
    input_seconds=_INPUT_SECONDS,
    output_seconds=_OUTPUT_SECONDS,
    # None is documented. 2,000 batches may be created in an hour (D); a hundred cost 100 polls a minute, and a hundred
    # of 200 MB are more than any quota of enqueued tokens lets in.
    live_batches=100,
    tokens=None,
    processes_files=False,
    urls=MappingProxyType({"chat": "/v1/chat/completions", "responses": "/v1/responses"}),
    endpoints=MappingProxyType({"chat": "/v1/chat/completions", "responses": "/v1/responses"}),
)

AZURE = Service(
    backend="azure-batch",
    provider="azure",
    records=100_000,  # D
    file_bytes=200 * MEGABYTE,  # D
    blob_bytes=1_000 * MEGABYTE,  # D: 1 GB through a storage account of one's own
    # With an expiry a resource holds 10,000 input files, and without one 500 (D).
    input_seconds=_INPUT_SECONDS,
    output_seconds=_OUTPUT_SECONDS,
    live_batches=100,  # as for OpenAI; each open batch holds one of the 10,000 files
    # Half of the smallest default quota, 30 million tokens for gpt-4.1 and gpt-4o in a data zone (D).
    tokens=15_000_000,
    processes_files=True,
    urls=MappingProxyType({"chat": "/v1/chat/completions", "responses": "/v1/responses"}),
    # The service goes by the url of the lines, whatever the endpoint says (D).
    endpoints=MappingProxyType({"chat": "/chat/completions", "responses": "/v1/responses"}),
)


@dataclass(frozen=True, slots=True)
class Family:
    """What a family of models understands. `context` is in tokens, None where it is not known."""

    prefix: str
    context: int | None
    native: bool
    limit_key: LimitKey = "max_completion_tokens"


# Context windows and structured outputs by the pages of the models (D). Names that are not here: no schema, since a
# model that refuses it refuses every row.
_FAMILIES = (
    Family("gpt-6", None, native=True),
    Family("gpt-5", 400_000, native=True),
    Family("gpt-4.1", 1_047_576, native=True),
    Family("gpt-4.5", 128_000, native=True),
    Family("gpt-4o", 128_000, native=True),
    Family("gpt-4o-2024-05-13", 128_000, native=False),
    Family("gpt-4", 128_000, native=False, limit_key="max_tokens"),
    Family("gpt-3.5", 16_385, native=False, limit_key="max_tokens"),
    Family("gpt-35", 16_385, native=False, limit_key="max_tokens"),
    Family("o1", 200_000, native=True),
    Family("o1-mini", 128_000, native=False),
    Family("o1-preview", 128_000, native=False),
    Family("o3", 200_000, native=True),
    Family("o4", 200_000, native=True),
    Family("llama", None, native=False, limit_key="max_tokens"),
    Family("meta-llama", None, native=False, limit_key="max_tokens"),
    Family("mistral", None, native=False, limit_key="max_tokens"),
    Family("ministral", None, native=False, limit_key="max_tokens"),
    Family("deepseek", None, native=False, limit_key="max_tokens"),
    Family("phi", None, native=False, limit_key="max_tokens"),
    Family("qwen", None, native=False, limit_key="max_tokens"),
    Family("cohere", None, native=False, limit_key="max_tokens"),
    Family("grok", None, native=False, limit_key="max_tokens"),
)
_UNKNOWN = Family("", None, native=False)

_LARGEST_CONTEXT = 1_047_576
# More bytes to a token than any prose has, so that nothing is refused here that the model would have taken.
_BYTES_PER_TOKEN = 6


def family_of(model: str) -> Family:
    """The family with the longest prefix of the model's name, without owner (`meta-llama/`) and fine-tuning (`ft:`)."""
    name = model.lower().removeprefix("ft:").rpartition("/")[2]
    known = [family for family in _FAMILIES if name.startswith(family.prefix)]
    return max(known, key=lambda family: len(family.prefix), default=_UNKNOWN)


def limits_of(
    service: Service, model: str, *, own_blob: bool, enqueued_tokens: int | None, longer_names: int = 0
) -> Limits:
    """What one batch may hold.

    `longer_names` is by how many bytes a line may grow when its deployment's name is exchanged for that of another. Of
    a quota of enqueued tokens a shard takes half: its tokens are estimated, and another one can be queued meanwhile.
    """
    size = service.blob_bytes if own_blob else service.file_bytes
    tokens = service.tokens if enqueued_tokens is None else max(1, enqueued_tokens // 2)
    context = family_of(model).context or _LARGEST_CONTEXT
    room = size - service.records * longer_names
    return Limits(
        records=service.records,
        bytes=room,
        request_bytes=min(room, context * _BYTES_PER_TOKEN),
        live_batches=service.live_batches,
        tokens=tokens,
        turnaround_seconds=WINDOW_SECONDS,
    )
