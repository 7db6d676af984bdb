"""Prompt templates: literal text with `{{ name }}` slots, and nothing else, so that a request can be built by splicing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lowtide.errors import ConfigError

_SLOT = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_LOGIC = re.compile(r"\{[%#]")


@dataclass(frozen=True, slots=True)
class Template:
    """`literals[0] slot[0] literals[1] slot[1] ... literals[-1]`: always one literal more than slots."""

    literals: tuple[str, ...]
    slots: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Cut a text at its slots. Raises ConfigError on `{%` and `{#`: templates hold no logic."""
        logic = _LOGIC.search(text)
        if logic:
            raise ConfigError(
                f"a prompt holds {logic.group()!r} at character {logic.start()}: prompts know {{{{ name }}}} slots only"
            )
        parts = _SLOT.split(text)
        return cls(literals=tuple(parts[0::2]), slots=tuple(parts[1::2]))

    def render(self, values: Mapping[str, str]) -> str:
        """The text with every slot filled. A value is never looked into for slots of its own."""
        out = [self.literals[0]]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            out.append(values[slot])
            out.append(literal)
        return "".join(out)

    @property
    def source(self) -> str:
        """The template as text again, with its slots spelled one way."""
        return self.render({slot: f"{{{{ {slot} }}}}" for slot in self.slots})
