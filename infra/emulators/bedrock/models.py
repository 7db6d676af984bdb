"""The models that are known here, and what is known of them. Sources: the README beside the package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["anthropic", "nova", "llama", "mistral", "titan", "open"]
# Geographies of cross-region inference profiles: `us.anthropic...`.
_GEOGRAPHY = re.compile(r"(?:us-gov|us|eu|apac|au|ca|jp|global)\.(?=[a-z0-9-]+\.)")


@dataclass(frozen=True, slots=True)
class Model:
    """One foundation model. `title` is its name in Service Quotas; `minimum` the fewest records of a batch job.

    `structured` says whether the model takes a JSON schema for its answer, `system` whether Converse lets it have a
    system prompt, and `job_gb` how large a job may be. The family `open` speaks OpenAI's chat form.
    """

    id: str
    title: str
    family: Family
    batch: bool = True
    minimum: int = 100
    structured: bool = False
    system: bool = True
    job_gb: int = 5


@dataclass(frozen=True, slots=True)
class Named:
    """What a model id stands for: a model, and whether it is somebody's own version of it."""

    model: Model
    custom: bool


_KNOWN = (
    Model("anthropic.claude-3-haiku-20240307-v1:0", "Claude 3 Haiku", "anthropic"),
    Model("anthropic.claude-3-5-haiku-20241022-v1:0", "Claude 3.5 Haiku", "anthropic"),
    Model("anthropic.claude-3-5-sonnet-20240620-v1:0", "Claude 3.5 Sonnet", "anthropic"),
    Model("anthropic.claude-3-5-sonnet-20241022-v2:0", "Claude 3.5 Sonnet v2", "anthropic"),
    Model("anthropic.claude-3-7-sonnet-20250219-v1:0", "Claude 3.7 Sonnet", "anthropic"),
    Model("anthropic.claude-sonnet-4-20250514-v1:0", "Claude Sonnet 4", "anthropic"),
    Model("anthropic.claude-sonnet-4-5-20250929-v1:0", "Claude Sonnet 4.5", "anthropic", structured=True),
    Model("anthropic.claude-haiku-4-5-20251001-v1:0", "Claude Haiku 4.5", "anthropic", structured=True),
    Model("anthropic.claude-sonnet-4-6", "Claude Sonnet 4.6", "anthropic", structured=True),
    Model("anthropic.claude-opus-4-5-20251101-v1:0", "Claude Opus 4.5", "anthropic", structured=True),
    Model("anthropic.claude-opus-4-6-v1", "Claude Opus 4.6", "anthropic", structured=True),
    Model("anthropic.claude-instant-v1", "Claude Instant", "anthropic", batch=False),
    Model("amazon.nova-micro-v1:0", "Nova Micro V1", "nova"),
    Model("amazon.nova-lite-v1:0", "Nova Lite V1", "nova", job_gb=100),
    Model("amazon.nova-pro-v1:0", "Nova Pro V1", "nova", job_gb=100),
    Model("amazon.nova-2-lite-v1:0", "Nova 2 Lite", "nova"),
    Model("meta.llama3-1-8b-instruct-v1:0", "Llama 3.1 8B Instruct", "llama"),
    Model("meta.llama3-1-70b-instruct-v1:0", "Llama 3.1 70B Instruct", "llama"),
    Model("meta.llama3-3-70b-instruct-v1:0", "Llama 3.3 70B Instruct", "llama"),
    Model("meta.llama4-scout-17b-instruct-v1:0", "Llama 4 Scout", "llama", minimum=50),
    Model("meta.llama4-maverick-17b-instruct-v1:0", "Llama 4 Maverick", "llama"),
    Model("mistral.mistral-small-2402-v1:0", "Mistral Small", "mistral"),
    Model("mistral.mistral-large-2407-v1:0", "Mistral Large 2 (24.07)", "mistral"),
    Model("mistral.mistral-7b-instruct-v0:2", "Mistral 7B Instruct", "mistral", batch=False, system=False),
    Model("amazon.titan-text-premier-v1:0", "Titan Text Premier", "titan", system=False),
    Model("amazon.titan-text-express-v1", "Titan Text G1 - Express", "titan", system=False),
    Model("amazon.titan-text-lite-v1", "Titan Text G1 - Lite", "titan", batch=False, system=False),
    Model("openai.gpt-oss-20b-1:0", "OpenAI GPT OSS 20b", "open", structured=True),
    Model("openai.gpt-oss-120b-1:0", "OpenAI GPT OSS 120b", "open", structured=True),
    Model("qwen.qwen3-32b-v1:0", "Qwen3 32B", "open", structured=True),
    Model("deepseek.v3-v1:0", "DeepSeek v3", "open", structured=True),
)
KNOWN: Mapping[str, Model] = {model.id: model for model in _KNOWN}


def named(model_id: str, models: Mapping[str, Model], profiles: Mapping[str, str]) -> Named | None:
    """The model that an id, an inference profile or an ARN of one of them stands for; None where there is none.

    `profiles` says which model id an application inference profile stands for, by the profile's id.
    """
    short = short_id(model_id)
    if ":custom-model/" in model_id:
        base = model_id.rsplit(":custom-model/", 1)[1].split("/", maxsplit=1)[0]
        found = max((known for known in models if base.startswith(known)), key=len, default=None)
        return None if found is None else Named(models[found], custom=True)
    short = profiles.get(short, short)
    model = models.get(short) or models.get(_GEOGRAPHY.sub("", short, count=1))
    return None if model is None else Named(model, custom=False)


def short_id(model_id: str) -> str:
    """The id without the ARN around it: of a model, or of a profile."""
    return model_id.rsplit("/", 1)[1] if model_id.startswith("arn:") and "/" in model_id else model_id


def shown_id(model_id: str, region: str, account: str) -> str:
    """The id as GetModelInvocationJob answers it: the ARN of the profile where a profile's id was given."""
    if _GEOGRAPHY.match(model_id):
        return f"arn:aws:bedrock:{region}:{account}:inference-profile/{model_id}"
    return model_id
