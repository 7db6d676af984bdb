"""How bills call models, as data, and what a user adds to it.

A pattern has to fit all of the words that name the model, in lower case and without blanks, hyphens and underscores:
`NovaLite` is `novalite`, and `gpt-4o-mini-0718` is `gpt4omini0718`. What fits no pattern is unknown, not guessed.

Sources, by the letter before a table: P published (the usage types of AWS's price list files, the meter names of
Azure's retail price API), A assumed from the pattern of the ones that are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from lowtide.billing.bill import base_model
from lowtide.errors import ConfigError

_BREAKS = re.compile(r"[\s_\-/()]+")

_AWS: tuple[tuple[str, str], ...] = (
    # P: NovaLite, NovaMicro, NovaPro, Nova2.0Lite
    (r"nova(lite|micro|pro|premier)", r"amazon.nova-\1"),
    (r"nova(\d)\.0(lite|micro|pro|premier)", r"amazon.nova-\1-\2"),
    (r"titantext(?:g1)?(lite|express)", r"amazon.titan-text-\1"),  # A
    # P: Claude3Haiku, Claude4.6Sonnet, "Claude Sonnet 4.6 (Amazon Bedrock Edition)"
    (r"claude([123])(haiku|sonnet|opus)", r"anthropic.claude-\1-\2"),
    (r"claude([123])\.(\d)(haiku|sonnet|opus)(?:v1)?", r"anthropic.claude-\1-\2-\3"),
    (r"claude3\.5sonnetv2", r"anthropic.claude-3-5-sonnet-v2"),
    (r"claude([4-9])(haiku|sonnet|opus)", r"anthropic.claude-\2-\1"),
    (r"claude([4-9])\.(\d)(haiku|sonnet|opus)", r"anthropic.claude-\3-\1-\2"),
    (r"claude(haiku|sonnet|opus)(\d)", r"anthropic.claude-\1-\2"),
    (r"claude(haiku|sonnet|opus)([4-9])\.(\d)", r"anthropic.claude-\1-\2-\3"),
    (r"claude(haiku|sonnet|opus)3\.(\d)", r"anthropic.claude-3-\2-\1"),
    # P: Llama4-Maverick-17B
    (r"llama4(maverick|scout)17b", r"meta.llama4-\1-17b-instruct"),
    (r"llama3\.?(\d)(\d+b)(?:instruct)?", r"meta.llama3-\1-\2-instruct"),
    (r"llama3(8b|70b)(?:instruct)?", r"meta.llama3-\1-instruct"),
    # P: Mistral7B, Mistral-Large-3-675b-Instruct
    (r"mistral7b", r"mistral.mistral-7b-instruct-v0:2"),
    (r"mistrallarge3675binstruct", r"mistral.mistral-large-3-675b-instruct"),
    # P: openai.gpt-oss-20b-mantle, GPT-OSS-20B, qwen.qwen3-32b, Qwen3-32B, deepseek.v3.2
    (r"(?:openai\.)?gptoss(20b|120b)", r"openai.gpt-oss-\1"),
    (r"(?:qwen\.)?qwen3(32b)", r"qwen.qwen3-\1"),
    (r"deepseek\.?v(\d)(?:\.(\d))?", r"deepseek.v\1.\2"),
)
_AZURE: tuple[tuple[str, str], ...] = (
    # P: gpt-4o-mini-0718, "gpt 4o 1120", "gpt 4o mini0718"
    (r"gpt4o(?:\d{4})?", "gpt-4o"),
    (r"gpt4omini(?:\d{4})?", "gpt-4o-mini"),
    # P: "gpt 4.1", "gpt 4.1 mini", "GPT 5 Mini", "5.4 mini"
    (r"gpt(\d(?:\.\d)?)(?:\d{4})?", r"gpt-\1"),
    (r"gpt(\d(?:\.\d)?)(mini|nano|pro|chat)(?:\d{4})?", r"gpt-\1-\2"),
    (r"(\d\.\d)(mini|nano|pro|chat)?", r"gpt-\1-\2"),
    # P: "o1 1217", "o3 mini 0131", "o1 mini"
    (r"(o\d)(?:\d{4})?", r"\1"),
    (r"(o\d)(mini|pro)(?:\d{4})?", r"\1-\2"),
    (r"gpt35turbo(?:16k)?(?:\d{4})?", "gpt-35-turbo"),  # A
)
_TABLES: Mapping[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    provider: tuple((re.compile(pattern), model) for pattern, model in table)
    for provider, table in (("aws", _AWS), ("azure", _AZURE))
}


@dataclass(frozen=True, slots=True)
class Names:
    """From a bill's words to models and units. `models` are the user's patterns, with `*` and `?`: the first that fits
    counts, before ours. `units` are tokens for units that say nothing of tokens.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)

    def model(self, provider: str, name: str, words: str) -> str:
        """The model that is called `name` within `words`, as `base_model` has it; "" if it is not known."""
        for pattern, model in self.models.items():
            if fnmatchcase(words.lower(), pattern.lower()):
                return base_model(model)
        compact = _BREAKS.sub("", name.lower())
        for known, model in _TABLES.get(provider, ()):
            if found := known.fullmatch(compact):
                return base_model(found.expand(model).rstrip(".-"))
        return ""

    def unit(self, unit: str) -> int | None:
        """Tokens for one such unit, if the user has said so."""
        return self.units.get(unit.strip().lower())


def read_names(path: Path) -> Names:
    """The user's own names: a YAML file with `models: {PATTERN: MODEL}` and `units: {UNIT: TOKENS}`.

    Raises ConfigError for one that cannot be read, or holds anything else.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; write models: {{PATTERN: MODEL}}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{place}: is not YAML; write models: {{PATTERN: MODEL}}") from None
    if not isinstance(data, dict) or not set(data) <= {"models", "units"}:
        found = ", ".join(map(repr, data)) if isinstance(data, dict) else type(data).__name__
        raise ConfigError(
            f"{path}: found {found}; write models: {{PATTERN: MODEL}} and, if needed, units: {{UNIT: TOKENS}}"
        )
    models, units = _pairs(path, data, "models"), _pairs(path, data, "units")
    for pattern, model in models.items():
        if not isinstance(model, str) or not model:
            raise ConfigError(f"{path}: models.{pattern}: found {model!r}; a model's name is needed")
    for unit, count in units.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"{path}: units.{unit}: found {count!r}; a whole number of tokens is needed")
    return Names(
        {pattern: str(model) for pattern, model in models.items()},
        {unit.lower(): int(str(count)) for unit, count in units.items()},
    )


def _pairs(path: Path, data: Mapping[str, object], section: str) -> dict[str, object]:
    pairs = data.get(section) or {}
    if not isinstance(pairs, dict):
        raise ConfigError(f"{path}: {section}: found {pairs!r}; a mapping is needed")
    return {str(key): value for key, value in pairs.items()}
