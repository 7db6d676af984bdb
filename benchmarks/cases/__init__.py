"""All benchmarks. Each is a module of this folder with a `CASE`; only the one that is asked for is imported."""

from __future__ import annotations

from importlib import import_module

from benchmarks.case import Case

NAMES = ("lines", "shards", "estimates", "collect", "cache", "journal", "whole")
"""In the order in which they run."""


def load(name: str) -> Case:
    """The case of that name."""
    case = import_module(f"benchmarks.cases.{name}").CASE
    if not isinstance(case, Case):
        raise TypeError(f"benchmarks.cases.{name}.CASE is no Case")
    return case
