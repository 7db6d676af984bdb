"""Names in price lists, and the models that they stand for. A name that is not here is not guessed."""

from __future__ import annotations

import re


def normal(name: str) -> str:
    """A name without what its spellings differ in: case, spaces and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


BEDROCK = {
    normal(name): model
    for name, model in {
        "Nova Micro": "amazon.nova-micro-v1:0",
        "Nova Lite": "amazon.nova-lite-v1:0",
        "Nova Pro": "amazon.nova-pro-v1:0",
        "Nova Premier": "amazon.nova-premier-v1:0",
        "Nova 2.0 Lite": "amazon.nova-2-lite-v1:0",
        "Claude 3 Haiku": "anthropic.claude-3-haiku-20240307-v1:0",
        "Claude 3 Sonnet": "anthropic.claude-3-sonnet-20240229-v1:0",
        "Claude 3 Opus": "anthropic.claude-3-opus-20240229-v1:0",
        "Claude 3.5 Haiku": "anthropic.claude-3-5-haiku-20241022-v1:0",
        "Claude 3.5 Sonnet": "anthropic.claude-3-5-sonnet-20240620-v1:0",
        "Claude 3.5 Sonnet v2": "anthropic.claude-3-5-sonnet-20241022-v2:0",
        "Claude 3.7 Sonnet": "anthropic.claude-3-7-sonnet-20250219-v1:0",
        "Claude Sonnet 4": "anthropic.claude-sonnet-4-20250514-v1:0",
        "Claude Sonnet 4.5": "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "Claude Sonnet 4.6": "anthropic.claude-sonnet-4-6",
        "Claude Sonnet 5": "anthropic.claude-sonnet-5",
        "Claude Haiku 4.5": "anthropic.claude-haiku-4-5-20251001-v1:0",
        "Claude Opus 4": "anthropic.claude-opus-4-20250514-v1:0",
        "Claude Opus 4.1": "anthropic.claude-opus-4-1-20250805-v1:0",
        "Claude Opus 4.5": "anthropic.claude-opus-4-5-20251101-v1:0",
        "Claude Opus 4.6": "anthropic.claude-opus-4-6-v1",
        "Claude Opus 4.7": "anthropic.claude-opus-4-7",
        "Claude Opus 4.8": "anthropic.claude-opus-4-8",
        "Claude Opus 5": "anthropic.claude-opus-5",
        "Llama 3 8B": "meta.llama3-8b-instruct-v1:0",
        "Llama 3 70B": "meta.llama3-70b-instruct-v1:0",
        "Llama 3.1 8B": "meta.llama3-1-8b-instruct-v1:0",
        "Llama 3.1 70B": "meta.llama3-1-70b-instruct-v1:0",
        "Llama 3.1 405B": "meta.llama3-1-405b-instruct-v1:0",
        "Llama 3.2 1B": "meta.llama3-2-1b-instruct-v1:0",
        "Llama 3.2 3B": "meta.llama3-2-3b-instruct-v1:0",
        "Llama 3.2 11B": "meta.llama3-2-11b-instruct-v1:0",
        "Llama 3.2 90B": "meta.llama3-2-90b-instruct-v1:0",
        "Llama 3.3 70B": "meta.llama3-3-70b-instruct-v1:0",
        "Llama 4 Scout 17B": "meta.llama4-scout-17b-instruct-v1:0",
        "Llama 4 Maverick 17B": "meta.llama4-maverick-17b-instruct-v1:0",
        "Mistral 7B": "mistral.mistral-7b-instruct-v0:2",
        "Mixtral 8x7B": "mistral.mixtral-8x7b-instruct-v0:1",
        "Mistral Small": "mistral.mistral-small-2402-v1:0",
        "Mistral Large": "mistral.mistral-large-2402-v1:0",
        "Ministral 3B 3.0": "mistral.ministral-3-3b-instruct",
        "Ministral 8B 3.0": "mistral.ministral-3-8b-instruct",
        "Magistral Small 1.2": "mistral.magistral-small-2509",
        "Devstral": "mistral.devstral-2-123b",
        "Voxtral Mini 1.0": "mistral.voxtral-mini-3b-2507",
        "Voxtral Small 1.0": "mistral.voxtral-small-24b-2507",
        "Mistral Large 3": "mistral.mistral-large-3-675b-instruct",
        "Mistral Large 3 675B Instruct": "mistral.mistral-large-3-675b-instruct",
        "GPT OSS 20B": "openai.gpt-oss-20b-1:0",
        "GPT OSS 120B": "openai.gpt-oss-120b-1:0",
        "GPT OSS Safeguard 20B": "openai.gpt-oss-safeguard-20b",
        "GPT OSS Safeguard 120B": "openai.gpt-oss-safeguard-120b",
        "Gemma 3 4B": "google.gemma-3-4b-it",
        "Gemma 3 12B": "google.gemma-3-12b-it",
        "Gemma 3 27B": "google.gemma-3-27b-it",
        "Gemma 3 4B IT": "google.gemma-3-4b-it",
        "Gemma 3 12B IT": "google.gemma-3-12b-it",
        "Gemma 3 27B IT": "google.gemma-3-27b-it",
        "NVIDIA Nemotron Nano 2": "nvidia.nemotron-nano-9b-v2",
        "NVIDIA Nemotron Nano 2 VL": "nvidia.nemotron-nano-12b-v2",
        "R1": "deepseek.r1-v1:0",
        "DeepSeek V3.1": "deepseek.v3-v1:0",
        "Qwen3 32B": "qwen.qwen3-32b-v1:0",
        "Qwen3 235B A22B 2507": "qwen.qwen3-235b-a22b-2507-v1:0",
        "Qwen3 Coder 30B A3B": "qwen.qwen3-coder-30b-a3b-v1:0",
        "Qwen3 Coder 480B A35B": "qwen.qwen3-coder-480b-a35b-v1:0",
        "Qwen3 VL 235B A22B": "qwen.qwen3-vl-235b-a22b",
    }.items()
}
"""Models of Bedrock by their names in the AWS price list, as usage types and as product names spell them.

Ids by Bedrock's documentation ("Supported foundation models in Amazon Bedrock").
"""

AZURE_OPENAI = {
    normal(name): models
    for name, models in {
        "gpt 4o 0513": ("gpt-4o-2024-05-13",),
        "gpt 4o 0806": ("gpt-4o-2024-08-06",),
        "gpt 4o 1120": ("gpt-4o-2024-11-20",),
        "gpt 4o mini 0718": ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        "gpt 4.1": ("gpt-4.1-2025-04-14", "gpt-4.1"),
        "gpt 4.1 mini": ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        "gpt 4.1 nano": ("gpt-4.1-nano-2025-04-14", "gpt-4.1-nano"),
        "o1 1217": ("o1-2024-12-17", "o1"),
        "o3 0416": ("o3-2025-04-16", "o3"),
        "o3 mini 0131": ("o3-mini-2025-01-31", "o3-mini"),
        "o4 mini 0416": ("o4-mini-2025-04-16", "o4-mini"),
        "gpt 5": ("gpt-5-2025-08-07", "gpt-5"),
        "gpt 5 mini": ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        "gpt 5 nano": ("gpt-5-nano-2025-08-07", "gpt-5-nano"),
        "5.1": ("gpt-5.1-2025-11-13", "gpt-5.1"),
        "5.2 1211": ("gpt-5.2-2025-12-11", "gpt-5.2"),
        "5.4": ("gpt-5.4-2026-03-05", "gpt-5.4"),
        "5.4 mini": ("gpt-5.4-mini-2026-03-17", "gpt-5.4-mini"),
        "5.4 nano": ("gpt-5.4-nano-2026-03-17", "gpt-5.4-nano"),
    }.items()
}
"""Models of Azure OpenAI by what is left of a meter's name. The name without a version only where there is one version.

Versions by Azure's documentation ("Foundry Models sold directly by Azure").
"""

AZURE_ZONES = {
    **dict.fromkeys(
        ("centralus", "eastus", "eastus2", "northcentralus", "southcentralus", "westus", "westus2", "westus3"), "us"
    ),
    **dict.fromkeys(
        ("francecentral", "germanywestcentral", "italynorth", "polandcentral", "spaincentral", "swedencentral",
         "westeurope"),
        "eu",
    ),
}  # fmt: skip
"""The Data Zone that a region belongs to: of the United States, or of the European Union."""
