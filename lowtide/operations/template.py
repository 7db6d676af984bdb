"""Prompt templates: literal text with `{{ name }}` slots and nothing else, so that a request is built by splicing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lowtide.errors import ConfigError

_SLOT = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_LOGIC = re.compile(r"\{[%#]")
# Braces around what is nearly a name. `{{"` and `{{1` stay literal text, since prompts show JSON.
_NEARLY = re.compile(r"\{\{\s*[A-Za-z_][^{}\"\n]{0,60}\}\}?|\{\{\s*\}\}")


@dataclass(frozen=True, slots=True)
class Template:
    """`literals[0] slot[0] literals[1] slot[1] ... literals[-1]`: always one literal more than slots."""

    literals: tuple[str, ...]
    slots: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Cut a text at its slots. Raises ConfigError on `{%` and `{#`, and on a slot that holds more than a name."""
        logic = _LOGIC.search(text)
        if logic:
            raise ConfigError(
                f"a prompt holds {logic.group()!r} at character {logic.start()}: prompts know {{{{ name }}}} slots only"
            )
        parts = _SLOT.split(text)
        for literal in parts[0::2]:
            nearly = _NEARLY.search(literal)
            if nearly:
                raise ConfigError(
                    f"a prompt holds {nearly.group()!r}: a slot is {{{{ name }}}}, of letters, digits and _"
                )
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
