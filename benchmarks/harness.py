"""Runs cases: each measurement in a fresh process, the variants of a round in turn, the best round kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.case import Case, Measured, Plan, Results

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the outcome: a figure, its bound in words, and whether it is kept."""

    case: str
    label: str
    value: float
    unit: str
    bound: str
    verdict: str


def run_case(case: Case, folder: Path, plan: Plan) -> tuple[list[Line], Results]:
    """Measure one case; its data is under `folder` until this returns. Raises RuntimeError if a variant fails."""
    results: dict[tuple[str, int], Measured] = {}
    try:
        with _service(case, folder) as service:
            for size, variants in plan.variants.items():
                results |= _measure(case, folder, size, variants, plan.rounds, service)
                shutil.rmtree(folder / str(size))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _lines(case, plan, results), results


def _measure(
    case: Case, folder: Path, size: int, variants: tuple[str, ...], rounds: int, service: str
) -> dict[tuple[str, int], Measured]:
    data, out = folder / str(size) / "data", folder / str(size) / "out"
    data.mkdir(parents=True)
    _child(folder, case.name, "setup", str(data), str(out), str(size))
    best: dict[tuple[str, int], Measured] = {}
    for number in range(rounds):
        for variant in variants:
            out.mkdir()
            _say(f"{case.name}: {variant}, {size:,}, round {number + 1} of {rounds}")
            now = Measured(**json.loads(_child(folder, case.name, variant, str(data), str(out), str(size), service)))
            shutil.rmtree(out)
            before = best.get((variant, size), now)
            best[variant, size] = Measured(
                min(before.cpu, now.cpu),
                min(before.wall, now.wall),
                min(before.rss, now.rss),
                min(before.child_rss, now.child_rss),
            )
    return best


def _child(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.variant", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=_environment(folder), stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:2])} failed with exit status {done.returncode}")
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    """Imports come from compiled files, as everywhere; where these must not lie beside the sources, from a folder."""
    environment = dict(os.environ)
    if environment.pop("PYTHONDONTWRITEBYTECODE", ""):
        environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "pycache")
    return environment


@contextmanager
def _service(case: Case, folder: Path) -> Iterator[str]:
    """The service that the case runs against, in a process whose CPU counts for nobody; yields its address."""
    if not case.service:
        yield ""
        return
    spool = folder / "service"
    spool.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", case.service, str(spool)],
        cwd=ROOT,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None:
            raise RuntimeError(f"{case.service} has no output to read its address from")
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def _lines(case: Case, plan: Plan, results: Results) -> list[Line]:
    lines = []
    for target in case.targets(plan):
        value = target.figure(results)
        bound = ""
        if target.at_least is not None:
            bound = f">= {target.at_least:g}"
        elif target.at_most is not None:
            bound = f"<= {target.at_most:g}"
        lines.append(Line(case.name, target.label, value, target.unit, bound, target.verdict(value)))
    return lines


def show(lines: list[Line]) -> str:
    """The outcome as a table."""
    width = max(len(line.label) for line in lines)
    rows = [f"{'case':8} {'figure':{width}} {'measured':>10} {'target':>10}"]
    for line in lines:
        value = f"{line.value:,.2f}" if line.value < 100 else f"{line.value:,.0f}"
        rows.append(f"{line.case:8} {line.label:{width}} {value:>7} {line.unit:2} {line.bound:>10} {line.verdict}")
    return "\n".join(rows)


def as_json(lines: list[Line], results: dict[str, Results]) -> str:
    """The outcome for machines: the figures, and the measurements that they were computed from."""
    measured = [
        {"case": case, "variant": variant, "size": size, **asdict(value)}
        for case, found in results.items()
        for (variant, size), value in found.items()
    ]
    return json.dumps({"figures": [asdict(line) for line in lines], "measurements": measured}, indent=1)


def _say(message: str) -> None:
    print(
        f"\r\033[K{message}" if sys.stderr.isatty() else message,
        file=sys.stderr,
        end="" if sys.stderr.isatty() else "\n",
    )
