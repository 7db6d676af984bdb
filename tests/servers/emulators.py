"""The emulators as a process of their own, with the handle that their /_emulator routes are."""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.process import serving

ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Emulator:
    """A running emulator at `url`, for the SDKs' endpoint_url and base_url."""

    url: str

    def bill(self) -> dict[str, Any]:
        """The whole bill: records, requests, tokens, tiers, totals, most_billed, billed_again."""
        return self._ask("/_emulator/bill")

    def charges(self, batch: str | None = None) -> list[dict[str, Any]]:
        """Every charge, or those of one batch, as they stand on the bill."""
        query = f"?batch={batch}" if batch else ""
        url = f"{self.url}/_emulator/bill/records{query}"
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - loopback
            return [json.loads(line) for line in answer]

    def calls(self) -> dict[str, Any]:
        """`counts` of calls by service and operation, and what was `created`."""
        return self._ask("/_emulator/calls")

    def clock(self, *, advance: float | None = None, speed: float | None = None) -> dict[str, Any]:
        """Move the clock on, or change its speed; `now` and `speed` after that."""
        changes = {name: value for name, value in (("advance", advance), ("speed", speed)) if value is not None}
        return self._ask("/_emulator/clock", changes) if changes else self._ask("/_emulator/clock")

    def faults(self, rules: Sequence[Mapping[str, object]], seed: int = 0) -> dict[str, Any]:
        """Follow these rules from now on, and no others; `done` says how often each has struck."""
        return self._ask("/_emulator/faults", {"seed": seed, "rules": list(rules)})

    def struck(self) -> list[int]:
        """How often each rule of the plan has struck, in its order."""
        return list(self._ask("/_emulator/faults")["done"])

    def settings(self, **services: Mapping[str, object]) -> dict[str, Any]:
        """Change settings, as `settings(bedrock={"visible_after": 5})`; all of them after that."""
        return self._ask("/_emulator/settings", services) if services else self._ask("/_emulator/settings")

    def reset(self) -> None:
        """Back to the state it started in: no batch, no file, an empty bill, the first faults and settings."""
        self._ask("/_emulator/reset", {})

    def _ask(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - loopback
            return dict(json.load(answer))


@contextmanager
def emulators(
    *,
    s3_url: str | None = None,
    blob: str | None = None,
    faults: Mapping[str, object] | None = None,
    speed: float = 1.0,
    seed: int = 0,
) -> Iterator[Emulator]:
    """Serve the emulators for as long as the block lasts. `faults` is a plan: `{"seed": 7, "rules": [...]}`."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--speed", str(speed), "--seed", str(seed)]
        if faults is not None:
            plan = Path(folder, "faults.yaml")
            plan.write_text(json.dumps(faults))
            options += ["--faults", str(plan)]
        for name, value in (("--s3", s3_url), ("--blob", blob)):
            if value is not None:
                options += [name, value]
        with serving(
            lambda port: [sys.executable, "-m", "lowtide.emulators", "--port", str(port), *options],
            ready="/_emulator/health",
        ) as url:
            yield Emulator(url)
