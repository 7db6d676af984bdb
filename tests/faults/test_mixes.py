"""All faults together, drawn at random: 51 mixes, a third at each provider."""

from __future__ import annotations

import random

import pytest
from faults.conftest import Setting
from faults.scene import BACKENDS, DOCUMENTS

FOREVER = {"times": "forever"}
CALLS = ("error_before", "error_after", "reset_before", "reset_after", "timeout_before", "timeout_after", "throttle")
SAFE = ("error_before", "reset_before", "timeout_before", "throttle")
"""What may happen to a call that changes nothing."""
ENDS = {
    "row_error": "error",
    "lose": "error",
    "truncate": "error",
    "malform": "error",
    "refuse": "refused",
}
"""Faults of rows that no further attempt mends, and how the row ends."""


def drawn(chance: random.Random, backend: str) -> list[dict[str, object]]:
    """Rules for calls, rows and batches, three to seven of them."""
    pool: list[dict[str, object]] = [
        {"on": "create", "do": chance.choice(CALLS), "times": chance.randint(1, 3), "seconds": 0.3},
        {"on": "create", "do": chance.choice(CALLS), "times": 1, "after": 2, "seconds": 0.3},
        {"on": ["get", "list"], "do": chance.choice(SAFE), "times": chance.randint(3, 15), "seconds": 0.2},
        {
            "on": ["upload", "download", "delete"],
            "do": chance.choice(SAFE),
            "times": chance.randint(1, 4),
            "seconds": 0.2,
        },
        {"on": "process", "do": chance.choice(["fail", "expire", "partial"]), "times": chance.randint(1, 2)},
        {"on": "process", "do": "slow", "times": 1},
        {"on": "output", "do": "reorder", **FOREVER},
        {"on": "row", "do": "row_server_error", "rate": 0.05, "each": 1, **FOREVER},
        {"on": "row", "do": "row_throttled", "rate": 0.05, "each": 1, **FOREVER},
        {"on": "row", "do": "row_expired", "rate": 0.05, "each": 1, **FOREVER},
        {"on": "row", "do": "duplicate", "rate": 0.05, **FOREVER},
        {"on": "row", "do": "late", "rate": 0.02, "seconds": 60, **FOREVER},
        {
            "on": "row",
            "do": chance.choice(sorted(ENDS)),
            "times": chance.randint(1, 30),
            "after": chance.randint(0, 900),
        },
        {"on": ["row", "converse", "chat"], "do": "poison", **FOREVER, "match": {"text": "POISON"}},
        {"on": "create", "do": "quota", "times": chance.randint(1, 2)},
    ]
    if backend != "bedrock":
        odd = chance.choice(["upper_case", "iso_times", "empty_file_ids"])
        pool.append({"on": ["create", "get", "list", "cancel"], "do": odd, **FOREVER})
        pool.append({"on": "validate", "do": "quota", "times": 1})
    else:
        pool.append({"on": "converse", "do": "throttle", "rate": 0.2, **FOREVER})
        pool.append({"on": "validate", "do": "fail_validation", "times": 1})
    return chance.sample(pool, chance.randint(3, 7))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(17))
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mix_of_faults(setting: Setting, backend: str, seed: int) -> None:
    chance = random.Random(f"{backend} {seed}")
    rules = drawn(chance, backend)
    scene = setting(backend, *rules, seed=seed, attempts=6)
    name = "bedrock" if backend == "bedrock" else "openai"
    scene.emulator.settings(**{name: {"visible_after": chance.choice([0, 0, 45])}})
    ended = scene.finish()
    scene.check(ended, struck=False)
    ends = {str(rule["do"]) for rule in rules}
    final = {ENDS[end] for end in ends if end in ENDS}
    poisoned = any(rule["do"] == "poison" for rule in rules)
    assert set(ended.statuses) <= {"ok", *final, *(["error"] if poisoned else [])}, rules
    # Where lines are lost and others were never due, nobody can tell which is which: none of them is asked again.
    blurred = {"lose", "truncate", "malform"} & ends and {"partial", "expire", "fail", "row_expired"} & ends
    struck = sum(times for rule, times in zip(rules, scene.emulator.struck(), strict=True) if rule["do"] in ENDS)
    assert blurred or DOCUMENTS - ended.statuses["ok"] <= struck + poisoned, rules
