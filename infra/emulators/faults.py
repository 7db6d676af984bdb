"""What is to go wrong: a plan of rules, seeded, so that the same plan over the same records does the same again.

A plan is YAML or JSON:

    seed: 7
    rules:
      - {on: create, do: timeout_after, seconds: 2, times: 1}
      - {on: [get, list], do: throttle, rate: 0.2, times: forever}
      - {on: row, do: poison, times: forever, match: {text: POISON}}
      - {on: row, do: row_error, rate: 0.1, each: 1, times: forever, match: {service: bedrock}}

Keys of a rule: `on` (a point, or several), `do` (a fault), `times` (how often in all: a number, 1 by default, or
`forever`), `rate` (the share of occasions, 1 by default), `after` (skip the first k occasions), `each` (at most so
often for one record), `seconds`, `code` and `message` (of an error, where the fault carries one), `match`: facts of
the occasion that must hold. A text fact matches where it contains the given text; any other where it is equal.

Every occasion has the fact `service` (bedrock, openai, azure); those of a record have `record` (its id) and `text`
(what was asked); those of a batch `batch` (its id) and `name`; all have `model` where one is known.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

POINTS = frozenset(
    {
        "upload",
        "create",
        "get",
        "list",
        "download",
        "cancel",
        "delete",
        "converse",
        "chat",
        "validate",
        "process",
        "row",
        "output",
    }
)
CALL_FAULTS = frozenset(
    {
        "error_before",
        "error_after",
        "reset_before",
        "reset_after",
        "timeout_before",
        "timeout_after",
        "throttle",
        "not_found",
        "quota",
    }
)
ROW_FAULTS = frozenset(
    {
        "row_error",
        "row_server_error",
        "row_throttled",
        "row_expired",
        "poison",
        "lose",
        "late",
        "duplicate",
        "truncate",
        "malform",
        "refuse",
        "invalid",
    }
)
BATCH_FAULTS = frozenset(
    {
        "fail_validation",
        "fail",
        "expire",
        "partial",
        "stop_late",
        "quota",
        "slow",
        "late",
        "reorder",
    }
)
# How an answer about a batch is written.
FORM_FAULTS = frozenset({"upper_case", "iso_times", "skew", "empty_file_ids"})
_BATCH_POINTS = frozenset({"validate", "process", "output"})
FACTS = frozenset(["service", "operation", "account", "model", "deployment", "batch", "name", "record", "text", "file"])
_KEYS = frozenset(["on", "do", "times", "rate", "after", "each", "seconds", "code", "message", "match"])


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans: PyYAML reads the key `on` as true."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name and form
        letter: [(tag, pattern) for tag, pattern in resolvers if letter in "tTfF" or tag != "tag:yaml.org,2002:bool"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class BadPlan(ValueError):
    """A plan of faults that cannot be followed; the message names the rule and what is wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong now. `seconds` is real time where a call hangs, and emulated time elsewhere."""

    do: str
    seconds: float = 0.0
    code: str = ""
    message: str = ""


@dataclass
class _Rule:
    fault: Fault
    on: frozenset[str]
    times: int | None
    rate: float
    after: int
    each: int | None
    match: Mapping[str, object]
    number: int
    occasions: int = 0
    done: int = 0
    hits: dict[str, int] = field(default_factory=dict)


class Faults:
    """Asked by the services at every point; answers with what goes wrong there. Thread-safe."""

    def __init__(self, plan: Mapping[str, object] | None = None) -> None:
        """Raises BadPlan."""
        self._lock = threading.Lock()
        self._plan: Mapping[str, object] = {}
        self._rules: tuple[_Rule, ...] = ()
        self._seed = 0
        self._first = plan or {}
        self.follow(self._first)

    @property
    def plan(self) -> Mapping[str, object]:
        """The plan that is being followed."""
        return self._plan

    def follow(self, plan: Mapping[str, object]) -> None:
        """Follow this plan from now on, and forget the last. An empty one stops all faults. Raises BadPlan."""
        seed, rules = _parsed(plan)
        with self._lock:
            self._plan, self._seed, self._rules = plan, seed, rules

    def reset(self) -> None:
        """Start the first plan again from its beginning."""
        self.follow(self._first)

    def done(self) -> list[int]:
        """How often each rule has struck, in the plan's order."""
        with self._lock:
            return [rule.done for rule in self._rules]

    def wants(self, point: str) -> bool:
        """Whether any rule may still strike at this point: rows ask it once and spare themselves the rest."""
        with self._lock:
            return any(point in rule.on and (rule.times is None or rule.done < rule.times) for rule in self._rules)

    def take(self, point: str, **facts: object) -> Fault | None:
        """The fault that this occasion meets: that of the first rule that holds, or None.

        Chance is drawn from the seed, the rule and the fact `record` where there is one, so it does not depend on
        the order of the records. A record that was spared stays spared; one that was struck is drawn for anew when
        it comes again.
        """
        with self._lock:
            for rule in self._rules:
                if point in rule.on and self._strikes(rule, facts):
                    return rule.fault
        return None

    def _strikes(self, rule: _Rule, facts: Mapping[str, object]) -> bool:
        if rule.times is not None and rule.done >= rule.times:
            return False
        if not all(_holds(facts.get(name), wanted) for name, wanted in rule.match.items()):
            return False
        rule.occasions += 1
        if rule.occasions <= rule.after:
            return False
        record = facts.get("record")
        key = "" if record is None else str(record)
        hits = rule.hits.get(key, 0)
        if rule.each is not None and record is not None and hits >= rule.each:
            return False
        turn = rule.occasions if record is None else hits
        if rule.rate < 1.0 and self.chance(rule.number, key, turn) >= rule.rate:
            return False
        rule.done += 1
        if record is not None and (rule.rate < 1.0 or rule.each is not None):
            rule.hits[key] = hits + 1
        return True

    def chance(self, *of: object) -> float:
        """A number from 0 up to 1 that depends on the plan's seed and on `of` alone."""
        digest = hashlib.blake2b(repr((self._seed, *of)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def read_plan(path: Path) -> Mapping[str, object]:
    """A plan from a YAML file, checked. Raises BadPlan, OSError."""
    try:
        plan = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadPlan(f"{path} is not YAML: {error}") from error
    plan = {} if plan is None else plan
    if not isinstance(plan, Mapping):
        raise BadPlan(f"{path}: a plan is a mapping with `seed` and `rules`")
    try:
        _parsed(plan)
    except BadPlan as error:
        raise BadPlan(f"{path}: {error}") from error
    return plan


def _holds(fact: object, wanted: object) -> bool:
    if isinstance(wanted, str):
        return fact is not None and wanted in str(fact)
    return fact == wanted


def _parsed(plan: Mapping[str, object]) -> tuple[int, tuple[_Rule, ...]]:
    unknown = set(plan) - {"seed", "rules"}
    seed, rules = plan.get("seed", 0), plan.get("rules", [])
    if unknown or not isinstance(seed, int) or not isinstance(rules, Sequence) or isinstance(rules, str):
        raise BadPlan(
            "a plan is {seed: <whole number>, rules: [...]}"
            + (f"; {_unknown(unknown, ('seed', 'rules'))}" if unknown else "")
        )
    return seed, tuple(_rule(number, rule) for number, rule in enumerate(rules, 1))


def _rule(number: int, given: object) -> _Rule:
    if not isinstance(given, Mapping):
        raise BadPlan(f"rule {number} needs `on` and `do`: it is a mapping, not {given!r}")
    if unknown := set(given) - _KEYS:
        raise BadPlan(f"rule {number}: {_unknown(unknown, _KEYS)}")
    if not {"on", "do"} <= set(given):
        raise BadPlan(f"rule {number} needs `on` and `do`")
    points = [given["on"]] if isinstance(given["on"], str) else given["on"]
    if not isinstance(points, Sequence) or not points or not all(isinstance(point, str) for point in points):
        raise BadPlan(f"rule {number}: `on` is a point or a list of points; known: {', '.join(sorted(POINTS))}")
    on = frozenset(points)
    if on - POINTS:
        raise BadPlan(f"rule {number}: `on`: {_unknown(on - POINTS, POINTS)}")
    do = given["do"]
    allowed = _faults_at(on)
    if not isinstance(do, str) or do not in allowed:
        raise BadPlan(f"rule {number}: `do` on {', '.join(sorted(on))}: {_unknown([do], allowed)}")
    times = given.get("times", 1)
    if times != "forever":
        times = _number(number, "times", times, whole=True)
    match = given.get("match", {})
    if not isinstance(match, Mapping):
        raise BadPlan(f"rule {number}: `match` is a mapping of facts, not {match!r}")
    if unknown := set(match) - FACTS:
        raise BadPlan(f"rule {number}: `match`: {_unknown(unknown, FACTS)}")
    each = given.get("each")
    return _Rule(
        fault=Fault(
            do,
            _number(number, "seconds", given.get("seconds", 0.0), least=-math.inf if do == "skew" else 0.0),
            str(given.get("code", "")),
            str(given.get("message", "")),
        ),
        on=on,
        times=None if times == "forever" else int(times),
        rate=_number(number, "rate", given.get("rate", 1.0), most=1.0),
        after=int(_number(number, "after", given.get("after", 0), whole=True)),
        each=None if each is None else int(_number(number, "each", each, whole=True)),
        match=dict(match),
        number=number,
    )


def _faults_at(on: Iterable[str]) -> set[str]:
    allowed = set[str]()
    for point in on:
        allowed |= ROW_FAULTS if point == "row" else BATCH_FAULTS if point in _BATCH_POINTS else CALL_FAULTS
        if point in {"create", "get", "list", "cancel"}:
            allowed |= FORM_FAULTS
        if point == "cancel":
            allowed |= {"stop_late"}
        if point in {"converse", "chat"}:
            allowed |= {"refuse", "invalid", "poison"}
    return allowed


def _number(
    rule: int, key: str, given: object, *, whole: bool = False, least: float = 0.0, most: float = math.inf
) -> float:
    fits = isinstance(given, int if whole else int | float) and not isinstance(given, bool)
    if not fits or not isinstance(given, int | float) or not math.isfinite(given) or not least <= given <= most:
        kind = "a whole number" if whole else "a number"
        span = "" if least == -math.inf else " from 0 up" if most == math.inf else f" from 0 to {most:g}"
        also = " or `forever`" if key == "times" else ""
        raise BadPlan(f"rule {rule}: `{key}` is {kind}{span}{also}, not {given!r}")
    return given


def _unknown(found: Iterable[object], known: Iterable[str]) -> str:
    """The first of what was found and is not known, with its nearest neighbour."""
    name, names = sorted(map(str, found))[0], sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown: {name!r}; {meant}known: {', '.join(names)}"
