"""The bill: every record that was really processed, with its tokens, whatever became of its answer."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

Tier = Literal["batch", "on_demand"]
_BUFFERED = 2000
_COLUMNS = (
    "service, account, model, tier, batch_id, record_id, request_sha256, "
    "input_tokens, cached_tokens, output_tokens, reasoning_tokens"
)


def request_hash(body: object) -> str:
    """SHA-256 of what was asked (a model input or a request body, no record id), its keys in order, as hex.

    The same question asked twice has the same hash, whatever its record was called.
    """
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Charge:
    """One processed record. `account` says who pays: an AWS account with its region, or a deployment.

    `input_tokens` counts the cached ones in, and `output_tokens` the reasoning ones. On demand there is no batch:
    `batch_id` and `record_id` are empty then.
    """

    service: str
    account: str
    model: str
    tier: Tier
    batch_id: str
    record_id: str
    request_sha256: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Total:
    """What was billed of one model of one service in one tier. `requests` counts different questions."""

    service: str
    model: str
    tier: str
    records: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int


class Bill:
    """Charges, kept in a file, so that memory does not grow with them. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Keep the charges in `folder`, which is there and goes with the process."""
        self._lock = threading.Lock()
        self._waiting: list[tuple[object, ...]] = []
        self._file = sqlite3.connect(folder / "bill.sqlite", check_same_thread=False, isolation_level=None)
        # The file ends with the process: nothing in it has to outlive a crash.
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute(
            "CREATE TABLE charges (service TEXT, account TEXT, model TEXT, tier TEXT, batch_id TEXT, record_id TEXT, "
            "request_sha256 BLOB, input_tokens INT, cached_tokens INT, output_tokens INT, reasoning_tokens INT)"
        )

    def record(self, charge: Charge) -> None:
        """Put one charge on the bill."""
        row = (
            charge.service,
            charge.account,
            charge.model,
            charge.tier,
            charge.batch_id,
            charge.record_id,
            bytes.fromhex(charge.request_sha256),
            charge.input_tokens,
            charge.cached_tokens,
            charge.output_tokens,
            charge.reasoning_tokens,
        )
        with self._lock:
            self._waiting.append(row)
            if len(self._waiting) >= _BUFFERED:
                self._flush()

    def totals(self, *, batch_id: str | None = None) -> list[Total]:
        """By service, model and tier; of one batch, if asked."""
        rows = self._select(
            "SELECT service, model, tier, COUNT(*), COUNT(DISTINCT request_sha256), SUM(input_tokens), "
            "SUM(cached_tokens), SUM(output_tokens), SUM(reasoning_tokens) FROM charges "
            "WHERE ?1 IS NULL OR batch_id = ?1 GROUP BY service, model, tier ORDER BY service, model, tier",
            (batch_id,),
        )
        return [Total(*row) for row in rows]

    def billed_per_request(self, *, more_than: int = 0) -> dict[str, int]:
        """How often each question was billed, by its request_sha256; only those billed more than that many times."""
        rows = self._select(
            "SELECT request_sha256, COUNT(*) AS times FROM charges GROUP BY request_sha256 HAVING times > ?",
            (more_than,),
        )
        return {digest.hex(): times for digest, times in rows}

    def charges(self, *, batch_id: str | None = None) -> Iterator[Charge]:
        """Every charge, in the order of the bill; of one batch, if asked. Streams."""
        last = 0
        while True:
            rows = self._select(
                f"SELECT rowid, {_COLUMNS} FROM charges WHERE rowid > ?1 AND (?2 IS NULL OR batch_id = ?2) "  # noqa: S608 - our own column names
                "ORDER BY rowid LIMIT 1000",
                (last, batch_id),
            )
            if not rows:
                return
            for row in rows:
                yield _charge(row[1:])
            last = rows[-1][0]

    def summary(self) -> Mapping[str, object]:
        """What `GET /_emulator/bill` answers.

        `records`, `requests` (different questions), tokens by kind, `totals` (a list by service, model and tier),
        `tiers` (records by tier), `most_billed`, and `billed_again`: request_sha256 -> times, where more than once.
        """
        totals = self.totals()
        again = self.billed_per_request(more_than=1)
        records = sum(total.records for total in totals)
        return {
            "records": records,
            "requests": records - sum(times - 1 for times in again.values()),
            "input_tokens": sum(total.input_tokens for total in totals),
            "cached_tokens": sum(total.cached_tokens for total in totals),
            "output_tokens": sum(total.output_tokens for total in totals),
            "reasoning_tokens": sum(total.reasoning_tokens for total in totals),
            "tiers": {
                tier: sum(total.records for total in totals if total.tier == tier) for tier in ("batch", "on_demand")
            },
            "totals": totals,
            "most_billed": max(again.values(), default=min(records, 1)),
            "billed_again": again,
        }

    def clear(self) -> None:
        """Forget every charge."""
        with self._lock:
            self._waiting.clear()
            self._file.execute("DELETE FROM charges")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()

    def _select(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            self._flush()
            return self._file.execute(query, values).fetchall()

    def _flush(self) -> None:
        if self._waiting:
            self._file.execute("BEGIN")
            self._file.executemany(
                f"INSERT INTO charges ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own column names
                self._waiting,
            )
            self._file.execute("COMMIT")
            self._waiting.clear()


def _charge(row: tuple[Any, ...]) -> Charge:
    service, account, model, tier, batch_id, record_id, digest, *tokens = row
    input_tokens, cached_tokens, output_tokens, reasoning_tokens = tokens
    return Charge(
        service=service,
        account=account,
        model=model,
        tier=tier,
        batch_id=batch_id,
        record_id=record_id,
        request_sha256=digest.hex(),
        input_tokens=input_tokens,
        cached_tokens=cached_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning_tokens,
    )
