"""The API key that an engine wants: from the worker's environment alone, since many may read a fleet's folder."""

from __future__ import annotations

from collections.abc import Mapping

NAMES = ("LOWTIDE_ENGINE_API_KEY", "VLLM_API_KEY")
"""Where it stands; the first one that is set counts. By the second one vLLM asks for it (`vllm serve`, "API key")."""

WANTS_KEY = frozenset({401, 403})
"""The statuses of an answer to whoever has no key, or a wrong one."""


class BadKey(Exception):
    """What no header can carry; the message names the variable, and does not quote it."""


def engine_key(environ: Mapping[str, str]) -> str:
    """The key, "" where none is set. Raises BadKey."""
    for name in NAMES:
        key = environ.get(name, "").strip()
        if key:
            if not (key.isascii() and key.isprintable()):
                raise BadKey(f"{name} in the environment is no API key: expected one line of printable ASCII")
            return key
    return ""


def headers(key: str) -> dict[str, str]:
    """What carries the key: as OpenAI's API and all that speaks like it take it."""
    return {"Authorization": f"Bearer {key}"} if key else {}
