"""What a benchmark is made of: a case, its variants, and the targets that their ratios are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Setting:
    """What one variant is given: prepared data, an empty folder of its own, the size, and the service's address."""

    data: Path
    out: Path
    size: int
    service: str = ""


Check = Callable[[], None]
"""Raises if what the work has made is wrong, so that no benchmark is won by a result that is. Not measured."""

Work = Callable[[], Check]
"""The measured part."""

Prepare = Callable[[Setting], Work]
"""The unmeasured part: imports what the variant needs, opens what must be there, and returns the work."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The best of several rounds. CPU is user and system time of the process and its ended children; RSS in bytes."""

    cpu: float
    wall: float
    rss: int
    child_rss: int = 0


Results = Mapping[tuple[str, int], Measured]
"""By variant and size."""


@dataclass(frozen=True, slots=True)
class Target:
    """A figure computed from the results, and the bound that it should keep, if there is one."""

    label: str
    figure: Callable[[Results], float]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"

    def verdict(self, value: float) -> str:
        """`pass`, `miss`, or "" where no bound is set."""
        if self.at_least is not None:
            return "pass" if value >= self.at_least else "miss"
        if self.at_most is not None:
            return "pass" if value <= self.at_most else "miss"
        return ""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of a case to measure: for each size its variants, and how many rounds."""

    variants: Mapping[int, tuple[str, ...]]
    rounds: int

    def at_most(self, size: int) -> Plan:
        """One round of the smallest size, or of this one if that is smaller still."""
        smallest = min(self.variants)
        return Plan({min(smallest, size): self.variants[smallest]}, 1)


@dataclass(frozen=True, slots=True)
class Case:
    """A benchmark. `setup` makes the data of one size, in a process of its own; `service` is a module to run beside.

    `whole_process` counts the CPU of everything since the process was started: the interpreter, imports, preparing.
    """

    name: str
    title: str
    variants: Mapping[str, Prepare]
    full: Plan
    quick: Plan
    targets: Callable[[Plan], list[Target]]
    setup: Callable[[Path, int], None] = lambda folder, size: None
    service: str = ""
    whole_process: bool = False
