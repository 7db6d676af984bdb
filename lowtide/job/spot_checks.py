"""What no single value of a spot backend can tell: keys that belong to another launcher, bounds that clash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from lowtide.job.backends import SpotBackend
from lowtide.job.problems import FieldPath, shown
from lowtide.job.secrets import is_secret_name

_BATCH = {"queue": "the AWS Batch job queue", "job_definition": "the AWS Batch job definition"}
_URL = re.compile(r"https?://[^/\s]+(?:/\S*)?")
_BESIDES = re.compile(r"[?#]|//[^/\s]*@")
# NAME=value, as in `env NAME=value` and in the words of a shell.
_ASSIGNED = re.compile(r"(?<![\w-])(?P<name>-{0,2}[A-Za-z_][\w-]*)=(?P<value>[^\s;&|]*)")
_WORD = re.compile(r"[^_-]+")
# Neither a reference to the worker's own environment, nor a number, nor a model's own token, such as </s>.
_OF_A_SECRET = re.compile(r"(?=.*[^\d.])['\"]?[^\s$<{'\"][^\s<]{3,}")
_INSTEAD = (
    "would be written into the root; expected it in the environment of the worker, which the engine inherits: sh -c "
    "with $NAME in the command fills it in there"
)


def check_spot(spec: SpotBackend) -> Iterator[tuple[FieldPath, str]]:
    """Everything that is wrong, each with the key to blame, from the backend's own section on."""
    yield from _check_launcher(spec)
    yield from _check_engine(spec)
    hourly, most = spec.usd_per_hour, spec.max_usd_per_hour
    if most is not None and hourly is not None and most < hourly:
        yield (
            ("max_usd_per_hour",),
            f"found {shown(f'{most:f}')}, which is less than one worker costs; expected at least usd_per_hour, "
            f"{hourly:f}",
        )
    if spec.in_flight.least > spec.in_flight.most:
        yield (
            ("in_flight", "least"),
            f"found {shown(str(spec.in_flight.least))}; expected at most in_flight.most, {spec.in_flight.most}",
        )


def _check_launcher(spec: SpotBackend) -> Iterator[tuple[FieldPath, str]]:
    if spec.launcher == "batch":
        for key, what in _BATCH.items():
            if getattr(spec, key) is None:
                yield (key,), f"missing; expected {what}, or launcher: process"
        if spec.usd_per_hour is not None:
            yield (
                ("usd_per_hour",),
                f"found {shown(f'{spec.usd_per_hour:f}')} beside launcher: batch; expected launcher: process or none, "
                "or no usd_per_hour: AWS says what an hour costs",
            )
        return
    for key in (*_BATCH, "region"):
        if (value := getattr(spec, key)) is not None:
            found = f"found {shown(value)} beside launcher: {spec.launcher}"
            yield (key,), f"{found}; expected launcher: batch, or no {key}"
    if spec.instances:
        found = f"found instance types beside launcher: {spec.launcher}"
        yield ("instances",), f"{found}; expected launcher: batch, or no instances"
    if spec.launcher == "none" and spec.max_usd_per_hour is not None:
        yield (
            ("max_usd_per_hour",),
            f"found {shown(f'{spec.max_usd_per_hour:f}')} beside launcher: none; expected none: whoever starts workers "
            "decides how many there are",
        )


def _check_engine(spec: SpotBackend) -> Iterator[tuple[FieldPath, str]]:
    engine = spec.engine
    if engine.url is not None and engine.command:
        yield ("engine", "url"), f"found {shown(engine.url)} beside command; expected one of the two"
    elif engine.url is not None and _BESIDES.search(engine.url):
        yield (
            ("engine", "url"),
            "found more than an address in it, which would be written into the root; expected an address without user, "
            "query or fragment, such as http://127.0.0.1:8000",
        )
    elif engine.url is not None and not _URL.fullmatch(engine.url):
        yield (
            ("engine", "url"),
            f"found {shown(engine.url)}; expected an address such as http://127.0.0.1:8000",
        )
    name = _secret_in(engine.command)
    if name:
        yield (
            ("engine", "command"),
            f"found a value for {shown(name)}, which is named like a secret, and {_INSTEAD}",
        )
    if engine.command and not engine.url and not any("{port}" in word for word in engine.command):
        yield (
            ("engine", "command"),
            "found no {port} in it; expected the port that the engine is to listen on, as {port}",
        )
    if not engine.health.startswith("/"):
        yield ("engine", "health"), f"found {shown(engine.health)}; expected a path such as /health"
    for name in engine.environment:
        if is_secret_name(name):
            yield (
                ("engine", "environment", name),
                "found a variable that is named like a secret, and would be written into the root; expected it in the "
                "environment of the worker, which the engine inherits",
            )


def _secret_in(words: Sequence[str]) -> str | None:
    """The option or variable of a command that is named like a secret and has a value; None if there is none."""
    for number, word in enumerate(words):
        for found in _ASSIGNED.finditer(word):
            if _names_secret(found["name"]) and _OF_A_SECRET.fullmatch(found["value"]):
                return found["name"]
        # Within one word too: `sh -c "serve --api-key ..."`.
        parts = word.split()
        followed = [*parts, *words[number + 1 : number + 2]]
        for option, value in pairwise(followed):
            if option.startswith("-") and _names_secret(option) and _OF_A_SECRET.fullmatch(value):
                return option
    return None


def _names_secret(name: str) -> bool:
    """Whether the name ends in a word for a secret: `--api-key` does, and `--long-prefill-token-threshold` does not."""
    words = _WORD.findall(name)
    return bool(words) and is_secret_name(name) and is_secret_name(words[-1])
