"""What is known of Bedrock's models, as data: which family's requests they take, how long those may be, what they can.

A model that is not in the table works through Converse, with the schema in the prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Family = Literal["anthropic", "nova", "llama", "mistral-text", "mistral-chat", "titan", "other"]


@dataclass(frozen=True, slots=True)
class Model:
    """One line of the table.

    `context` is the longest request in tokens. `native` says that answers can be held to a JSON Schema. `system` is
    False where Converse refuses a system prompt. `minimum` is the fewest records of a batch. `quota` is the name in
    Service Quotas where it cannot be told from the model's id.
    """

    family: Family
    context: int
    native: bool = False
    system: bool = True
    minimum: int = 100
    quota: str = ""


UNKNOWN = Model("other", 1_000_000)

# Sources. Contexts: the model cards of the user guide, the longest that is offered anywhere, since the table is there
# to refuse what cannot fit and nothing else. `native`: the list of "Get validated JSON results from models" in the user
# guide, as quoted in February 2026 (github.com/567-labs/instructor/issues/2084); Claude Sonnet 4.6 by its model card.
# `system`: "Supported models and model features" of Converse in the user guide. `minimum`: the quota table of the AWS
# General Reference. The longest prefix of a model's id counts.
_TABLE: dict[str, Model] = {
    "anthropic.claude": Model("anthropic", 200_000),
    "anthropic.claude-sonnet-4": Model("anthropic", 1_000_000),
    "anthropic.claude-haiku-4-5": Model("anthropic", 200_000, native=True),
    "anthropic.claude-sonnet-4-5": Model("anthropic", 1_000_000, native=True),
    "anthropic.claude-sonnet-4-6": Model("anthropic", 1_000_000, native=True),
    "anthropic.claude-opus-4-5": Model("anthropic", 200_000, native=True),
    "anthropic.claude-opus-4-6": Model("anthropic", 1_000_000, native=True),
    "anthropic.claude-opus-5": Model("anthropic", 1_000_000),
    "anthropic.claude-sonnet-5": Model("anthropic", 1_000_000),
    "amazon.nova": Model("nova", 1_000_000),
    "amazon.nova-micro": Model("nova", 128_000),
    "amazon.nova-lite": Model("nova", 300_000),
    "amazon.nova-pro": Model("nova", 300_000),
    "amazon.titan-text": Model("titan", 32_000, system=False),
    "amazon.titan-text-lite": Model("titan", 4_000, system=False, quota="Titan Text G1 - Lite"),
    "amazon.titan-text-express": Model("titan", 8_000, system=False, quota="Titan Text G1 - Express"),
    "meta.llama": Model("llama", 128_000),
    "meta.llama3-8b": Model("llama", 8_000),
    "meta.llama3-70b": Model("llama", 8_000),
    "meta.llama4-maverick": Model("llama", 1_000_000, quota="Llama 4 Maverick"),
    "meta.llama4-scout": Model("llama", 3_500_000, minimum=50, quota="Llama 4 Scout"),
    "mistral.": Model("mistral-chat", 256_000),
    "mistral.mistral-7b": Model("mistral-text", 32_000, system=False),
    "mistral.mixtral-8x7b": Model("mistral-text", 32_000, system=False),
    "mistral.mistral-small-2402": Model("mistral-text", 32_000, quota="Mistral Small"),
    "mistral.mistral-large-2402": Model("mistral-text", 32_000),
    "mistral.mistral-large-2407": Model("mistral-chat", 128_000, quota="Mistral Large 2 (24.07)"),
    "openai.gpt-oss": Model("other", 128_000, native=True),
    "qwen.qwen3": Model("other", 256_000, native=True),
    "deepseek.v3": Model("other", 164_000, native=True, quota="DeepSeek v3"),
}

_GEOGRAPHY = re.compile(r"(?:[a-z]{2}|us-gov|apac|global)\.")
_VENDORS = frozenset({"amazon", "anthropic", "meta", "mistral", "ai", "openai", "cohere", "ai21", "labs"})
_VERSION = re.compile(r"-(?:v\d+(?::\w+)*|\d(?::\w+)+)$")
_DATE = re.compile(r"-20\d{6}")
_PARTS = re.compile(r"[a-z]+|\d+")


def base_id(model: str) -> str:
    """The foundation model's id behind an id, a profile's id or an ARN; "" where an ARN does not say it."""
    if model.startswith("arn:"):
        kind, _, rest = model.split(":", 5)[5].partition("/")
        if kind == "application-inference-profile":
            return ""
        model = rest.partition("/")[0]
    return model[found.end() :] if (found := _GEOGRAPHY.match(model)) else model


def known(model: str) -> Model:
    """The model's line, or that of models which are not in the table."""
    name = base_id(model)
    prefixes = [prefix for prefix in _TABLE if name.startswith(prefix)]
    return _TABLE[max(prefixes, key=len)] if prefixes else UNKNOWN


def quota_key(model: str) -> tuple[str, ...]:
    """What the model's id and its name in Service Quotas have in common (`name_key`); empty if the id says nothing."""
    if quota := known(model).quota:
        return name_key(quota)
    _, _, name = base_id(model).partition(".")
    return name_key(_DATE.sub("", _VERSION.sub(_kept_version, name)))


def name_key(name: str) -> tuple[str, ...]:
    """The words and numbers of a model's name, in order, without its vendor and a `v1`.

    `Claude 3.5 Sonnet v2` and `claude-3-5-sonnet-v2` give the same. Names are not told apart by likeness: a model that
    finds no equal gets the defaults.
    """
    parts = [part for part in _PARTS.findall(name.lower()) if part not in _VENDORS]
    if parts[-2:] == ["v", "1"]:
        parts = parts[:-2]
    return tuple(parts)


def _kept_version(found: re.Match[str]) -> str:
    version = found[0].partition(":")[0]
    # `-v2:0` is part of the name Claude 3.5 Sonnet v2, `-v1:0` and `-1:0` of none.
    return version if version.startswith("-v") else ""
