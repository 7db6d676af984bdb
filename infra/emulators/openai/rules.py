"""What OpenAI and Azure OpenAI allow, as data. README.md beside this file names the source of every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
COMPLETION_WINDOW = "24h"
METADATA_PAIRS = 16
METADATA_KEY = 64
METADATA_VALUE = 512
MAX_ERRORS = 100

Api = Literal["chat", "responses"]


@dataclass(frozen=True, slots=True)
class Mode:
    """One provider's limits and habits. Sizes are in bytes, times in seconds; None stands for no limit."""

    name: Literal["openai", "azure"]
    max_requests: int
    file_bytes: int
    blob_bytes: int | None
    least_expiry: int
    longest_expiry: int
    batch_file_expiry: int | None
    files: int | None
    expiring_files: int | None
    batches_expire: bool
    batches_an_hour: int | None
    endpoints: frozenset[str]
    tells_usage: bool


OPENAI = Mode(
    name="openai",
    max_requests=50_000,
    file_bytes=200_000_000,
    blob_bytes=None,
    least_expiry=HOUR,
    longest_expiry=30 * DAY,
    batch_file_expiry=30 * DAY,
    files=None,
    expiring_files=None,
    batches_expire=True,
    batches_an_hour=2_000,
    endpoints=frozenset(
        "/v1/" + name
        for name in (
            "responses",
            "chat/completions",
            "embeddings",
            "completions",
            "moderations",
            "images/generations",
            "images/edits",
            "videos",
        )
    ),
    tells_usage=True,
)
AZURE = Mode(
    name="azure",
    max_requests=100_000,
    file_bytes=200_000_000,
    blob_bytes=1_000_000_000,
    least_expiry=14 * DAY,
    longest_expiry=30 * DAY,
    batch_file_expiry=None,
    files=500,
    expiring_files=10_000,
    batches_expire=False,
    batches_an_hour=None,
    endpoints=frozenset({"/chat/completions", "/v1/chat/completions", "/responses", "/v1/responses"}),
    tells_usage=False,
)


@dataclass(frozen=True, slots=True)
class Model:
    """What a model takes and gives, in tokens.

    `enqueued` is Azure's default quota for a Global Batch deployment of it, `data_zone` for one of a data zone.
    """

    context: int
    output: int
    reasoning: bool = False
    enqueued: int = 200_000_000
    data_zone: int | None = None


MODELS = {
    "gpt-4o": Model(128_000, 16_384, data_zone=30_000_000),
    "gpt-4o-mini": Model(128_000, 16_384, enqueued=1_000_000_000),
    "gpt-4.1": Model(1_047_576, 32_768, data_zone=30_000_000),
    "gpt-4.1-mini": Model(1_047_576, 32_768, enqueued=1_000_000_000),
    "gpt-4.1-nano": Model(1_047_576, 32_768, enqueued=1_000_000_000),
    "o3-mini": Model(200_000, 100_000, reasoning=True, enqueued=1_000_000_000),
    "o4-mini": Model(200_000, 100_000, reasoning=True, enqueued=1_000_000_000),
    "gpt-5": Model(400_000, 128_000, reasoning=True),
    "gpt-5-mini": Model(400_000, 128_000, reasoning=True),
    "gpt-5.1": Model(400_000, 128_000, reasoning=True),
}
UNKNOWN_MODEL = Model(128_000, 16_384)

BATCH_SKUS = frozenset({"globalbatch", "datazonebatch"})

CHAT_PARAMETERS = frozenset(
    [
        "messages",
        "model",
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]
)
RESPONSES_PARAMETERS = frozenset(
    [
        "access_programs",
        "background",
        "context_management",
        "conversation",
        "image",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "moderation",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ]
)


def api_of(url: str) -> Api | None:
    """Which API a line's `url`, or a batch's endpoint, names; None where it is none that is answered here."""
    match url.removeprefix("/v1"):
        case "/chat/completions":
            return "chat"
        case "/responses":
            return "responses"
    return None
