"""The locks in requirements/: complete, pinned by hash, in agreement with one another, and naming no package host."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

LOCKS = ("runtime", "dev", "model", "build", "uv")


class Pin(NamedTuple):
    name: str
    version: str
    marker: str


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read(checkout: Path, lock: str) -> str:
    return (checkout / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")


def pins(checkout: Path, lock: str) -> set[Pin]:
    """What a lock pins. Raises where a line is anything but a pin and its hashes."""
    found = set()
    for entry in read(checkout, lock).replace("\\\n", " ").splitlines():
        pin = re.fullmatch(r"([\w.-]+)==([\w.+!]+)(?: ; ([^-]+?))?((?:\s+--hash=sha256:[0-9a-f]{64})+)", entry.strip())
        assert pin, f"{lock}.txt: {entry[:80]!r} is not a pin with hashes"
        found.add(Pin(normal(pin[1]), pin[2], pin[3] or ""))
    return found


def asked(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in requirements}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_pins_with_hashes_and_nothing_else(checkout: Path, lock: str) -> None:
    assert pins(checkout, lock)
    assert "://" not in read(checkout, lock)


def test_every_package_that_is_asked_for_is_locked(checkout: Path) -> None:
    pyproject = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = asked(pyproject["project"]["dependencies"])
    extras = asked([name for group in pyproject["project"]["optional-dependencies"].values() for name in group])
    groups = asked([name for group in pyproject["dependency-groups"].values() for name in group])

    assert runtime <= {pin.name for pin in pins(checkout, "runtime")}
    assert runtime | extras | groups <= {pin.name for pin in pins(checkout, "dev")}
    assert asked(pyproject["build-system"]["requires"]) <= {pin.name for pin in pins(checkout, "build")}


def test_what_is_run_is_what_is_tested(checkout: Path) -> None:
    # A marker may be narrower in one lock; what a marker selects must be the same version.
    tested = {(pin.name, pin.version) for pin in pins(checkout, "dev")}

    assert {(pin.name, pin.version) for pin in pins(checkout, "runtime")} <= tested


def test_the_model_is_installed_with_the_versions_of_the_other_locks(checkout: Path) -> None:
    tested = {pin.name: pin.version for pin in pins(checkout, "dev")}

    assert all(tested.get(pin.name, pin.version) == pin.version for pin in pins(checkout, "model"))
