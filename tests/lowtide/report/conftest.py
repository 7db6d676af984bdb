"""Tables of a run that never was, with the columns and types of DESIGN.md's results contract."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowtide.plan import PlannedDocuments, PlannedOption, PlannedReplacement, Range, RunPlan
from lowtide.report import ReportMeta, ShardTime, write_report
from lowtide.schemas import LEDGER, RUNS, results_schema

START = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
RESULTS = results_schema(["customer", "lang"])
Row = Mapping[str, object]


class Tables:
    """Makes the three tables, and pages from them."""

    start = START

    def results(self, rows: Sequence[Row]) -> io.BytesIO:
        """The results table with these rows; what a row does not name is null."""
        return self._written(rows, RESULTS)

    def ledger(self, rows: Sequence[Row]) -> io.BytesIO:
        """The ledger with these entries."""
        return self._written(rows, LEDGER)

    def runs(self, rows: Sequence[Row]) -> io.BytesIO:
        """The runs table with these rows."""
        return self._written(rows, RUNS)

    def write(self, columns: Mapping[str, object], schema: pa.Schema | None = None) -> io.BytesIO:
        """Any table at all."""
        out = io.BytesIO()
        pq.write_table(pa.table(dict(columns), schema=schema), out)
        out.seek(0)
        return out

    def write_many(self, results: Path, ledger: Path, rows: int) -> None:
        """Two files of so many rows each, in one row group, with texts that do not compress."""
        dice = random.Random(rows)
        for path, schema in ((results, RESULTS), (ledger, LEDGER)):
            with pq.ParquetWriter(path, schema, compression="none") as writer:
                made = pa.concat_tables(
                    self._many(start, min(10_000, rows - start), schema, dice) for start in range(0, rows, 10_000)
                )
                writer.write_table(made, row_group_size=rows)

    def _many(self, start: int, rows: int, schema: pa.Schema, dice: random.Random) -> pa.Table:
        one = self.row(0) if schema is RESULTS else self.entry(0)
        columns = {name: pa.array([one.get(name)] * rows, schema.field(name).type) for name in schema.names}
        if schema is RESULTS:
            columns["document_id"] = pa.array(_noise(rows, 32, dice))
            columns["document_uri"] = pa.array([f"s3://bucket/{number}" for number in range(start, start + rows)])
            columns["output_text"] = pa.array(_noise(rows, 256, dice))
        else:
            columns["entry_id"] = pa.array([f"e{number}" for number in range(start, start + rows)])
            columns["shard"] = pa.array([number // 1_000 for number in range(start, start + rows)], pa.int32())
        return pa.table(columns, schema=schema)

    def row(self, number: int, **values: object) -> Row:
        """One row of results, ok unless said otherwise."""
        sha = hashlib.sha256(str(number).encode()).hexdigest()
        made: dict[str, object] = {
            "run_id": "run-1",
            "window_start": START - timedelta(days=7),
            "window_end": START,
            "document_id": sha[:32],
            "document_uri": f"s3://tickets/2026/11/{number:06d}.txt",
            "operation": "summarize",
            "operation_kind": "summarize",
            "status": "ok",
            "output_text": f"The customer of ticket {number} asks for a refund.",
            "model": "claude-haiku-4-5-20251001",
            "backend": "bedrock",
            "input_tokens": 400 + number % 97,
            "output_tokens": 60 + number % 13,
            "cost_usd": Decimal("0.000712500000"),
            "cost_if_realtime_usd": Decimal("0.001425000000"),
            "cached": False,
            "content_sha256": sha,
        }
        return made | values

    def entry(self, number: int, **values: object) -> Row:
        """One ledger entry of kind actual."""
        made: dict[str, object] = {
            "entry_id": f"e{number}",
            "at": START,
            "run_id": "run-1",
            "kind": "actual",
            "scope": "shard",
            "shard": 1,
            "attempt": 1,
            "backend": "bedrock",
            "model": "claude-haiku-4-5-20251001",
            "token_type": "input",
            "quantity": 1000,
            "unit": "tokens",
            "amount": Decimal("0.5"),
            "currency": "USD",
        }
        return made | values

    def page(
        self,
        results: io.BytesIO | None = None,
        ledger: io.BytesIO | None = None,
        runs: io.BytesIO | None = None,
        **meta: object,
    ) -> str:
        """The report of these tables."""
        out = io.BytesIO()
        write_report(results, ledger, runs, out, meta=replace(self.meta(), **meta))  # type: ignore[arg-type]
        return out.getvalue().decode("utf-8")

    def meta(self) -> ReportMeta:
        """The heading of a week of support tickets."""
        return ReportMeta(
            job="support-tickets", window="2026-W47", run_id="run-1", generated_at=START + timedelta(hours=5)
        )

    def shard_times(self, shards: int, seed: int = 7) -> tuple[ShardTime, ...]:
        """Shards that went out together and came back one by one; every seventh had a second attempt."""
        dice = random.Random(seed)
        return tuple(one for number in range(1, shards + 1) for one in self._attempts(number, dice))

    def a_week(self, rows: int = 6_000, shards: int = 12) -> dict[str, io.BytesIO]:
        """A run as they come: three operations, some failures, a little waste."""
        dice = random.Random(11)
        made = list(self._week_rows(rows, dice))
        statuses = [str(row["status"]) for row in made]
        entries = list(self._week_entries(shards, dice))
        cost = sum((Decimal(str(entry["amount"])) for entry in entries if entry["kind"] == "actual"), Decimal(0))
        run: dict[str, object] = {
            "run_id": "run-1",
            "documents": rows // 3,
            "rows": rows,
            "planned_cost_usd": Decimal("61.20"),
            "cost_usd": cost,
            "started": START,
            "finished": START + timedelta(hours=3, minutes=12, seconds=40),
            "deadline": START + timedelta(hours=24),
            "seconds_waiting": 10_911.0,
            "seconds_working": 96.4,
        }
        run |= {status: statuses.count(status) for status in ("ok", "invalid", "refused", "error", "skipped")}
        return {"results": self.results(made), "ledger": self.ledger(entries), "runs": self.runs([run])}

    def a_compared_week(self, rows: int = 6_000, shards: int = 12) -> dict[str, io.BytesIO]:
        """The same week with all that newer tables say: real time, the cache, what was planned of output."""
        made = self.a_week(rows, shards)
        entries = pq.read_table(made["ledger"]).to_pylist()
        for entry in entries:
            if entry["kind"] == "actual":
                entry["realtime_amount"] = 2 * entry["amount"]
        entries += [
            dict(self._priced(1, "input", 1_440_000, "0.0000005", None)) | {"kind": "saved", "scope": "run"},
            dict(self._priced(1, "output", 210_000, "0.0000025", None)) | {"kind": "saved", "scope": "run"},
        ]
        actual = [entry for entry in entries if entry["kind"] == "actual"]
        [run] = pq.read_table(made["runs"]).to_pylist()
        run |= {
            "backend": "bedrock",
            "model": "claude-haiku-4-5-20251001",
            "requests": rows - 540,
            "reused_requests": 480,
            "twin_requests": 60,
            "planned_input_tokens": 60_000_000,
            "planned_output_tokens": 9_000_000,
            "input_tokens": sum(one["quantity"] for one in actual if "input" in one["token_type"]),
            "output_tokens": sum(one["quantity"] for one in actual if one["token_type"] == "output"),
            "cost_if_realtime_usd": sum(one["realtime_amount"] for one in actual if not one["waste"]),
            "saved_usd": sum(one["amount"] for one in entries if one["kind"] == "saved"),
        }
        return made | {"ledger": self.ledger(entries), "runs": self.runs([run])}

    def plan(self, **values: object) -> RunPlan:
        """What that week was planned to be, with three backends to choose from."""

        def option(backend: str, model: str, usd: str, hours: float, **more: object) -> PlannedOption:
            cost = Decimal(usd)
            known: dict[str, object] = {
                "backend": backend,
                "model": model,
                "region": "eu-central-1",
                "price_id": f"{model} batch",
                "input_tokens": Range(52_000_000, 60_000_000, 69_000_000),
                "output_tokens": Range(7_600_000, 9_000_000, 11_200_000),
                "cost_low_usd": cost * Decimal("0.86"),
                "cost_usd": cost,
                "cost_high_usd": cost * Decimal("1.19"),
                "realtime_usd": 2 * cost,
                "shards": 12,
                "finish": (START + timedelta(hours=hours)).timestamp(),
                "finish_basis": "earlier runs",
                "fits_deadline": hours <= 24,
                "basis": "calibrated",
            }
            return PlannedOption(**(known | more))  # type: ignore[arg-type]

        known: dict[str, object] = {
            "run_id": "run-1",
            "nonce": "0a1b2c3d",
            "job": "support-tickets",
            "window": "2026-W47",
            "window_start": START - timedelta(days=7),
            "window_end": START,
            "created_at": START.timestamp(),
            "files": 2_000,
            "bytes": 8_000_000,
            "inputs_sha256": "0" * 64,
            "operations": (),
            "backend": "bedrock",
            "provider": "aws",
            "region": "eu-central-1",
            "model": "claude-haiku-4-5-20251001",
            "parameters": {},
            "fields": (),
            "shard_records": 500,
            "attempts": 3,
            "deadline": (START + timedelta(hours=24)).timestamp(),
            "run_usd": Decimal(100),
            "input_tokens": 60_000_000,
            "output_tokens": 9_000_000,
            "cost_usd": Decimal("61.20"),
            "price_id": "claude-haiku-4-5 batch",
            "tags": {},
            "price_book": "2026-11-20 3f9a12",
            "documents": PlannedDocuments(True, 2_000, 2_000, 1_700, 260, 40, 3, 5_460, 480, 60, 8_000_000),
            "options": (
                option("bedrock", "claude-haiku-4-5-20251001", "61.20", 4, chosen=True),
                option("azure-batch", "gpt-5.4-mini", "74.85", 9, why_not="22 % dearer"),
                option("spot", "qwen3-8b", "40.10", 31, why_not="would be done 7 h after the deadline"),
            ),
            "replaces": PlannedReplacement("run-0", 5_880, (START - timedelta(days=1)).timestamp()),
            "approve_above_usd": Decimal(80),
        }
        return RunPlan(**(known | values))  # type: ignore[arg-type]

    def _week_rows(self, rows: int, dice: random.Random) -> Iterator[Row]:
        labels = ("billing", "bug", "how-to", "feature request", "account access", "spam")
        failures = {
            "invalid": "the answer is not one of the labels",
            "refused": "the provider's content filter refused the document",
            "error": "no answer after 3 attempts: expired",
            "skipped": "the PDF has no text",
        }
        for number in range(rows):
            status = dice.choices(["ok", *failures], [960, 14, 6, 9, 11])[0]
            values: dict[str, object] = {
                "status": status,
                "status_reason": failures.get(status),
                "customer": f"customer {number % 40}",
                "lang": dice.choice(["en", "fr", "de"]),
            }
            if status != "ok":
                values["output_text"] = None
            if number % 3 == 1:
                label = dice.choices(labels, [34, 22, 17, 12, 9, 6])[0] if status == "ok" else None
                values |= {"operation": "topic", "operation_kind": "classify", "output_text": None, "label": label}
                values["confidence"] = dice.uniform(0.5, 0.99) if label else None
            elif number % 3 == 2:
                facts = json.dumps({"order": f"A-{number}", "amount_eur": number % 900, "urgent": False})
                values |= {"operation": "facts", "operation_kind": "extract", "output_text": None}
                values["output"] = facts if status == "ok" else None
            yield self.row(number, **values)

    def _week_entries(self, shards: int, dice: random.Random) -> Iterator[Row]:
        prices = {"input": "0.0000005", "cached_input": "0.00000005", "output": "0.0000025"}
        for number in range(1, shards + 1):
            for token_type, price in prices.items():
                share = {"input": 5_000_000, "cached_input": 1_500_000, "output": 900_000}[token_type]
                quantity = int(share * dice.uniform(0.6, 1.1))
                yield self._priced(number, token_type, quantity, price, None)
                yield self._priced(number, token_type, quantity, price, None) | {"kind": "estimate"}
                if number % 5 == 0:
                    yield self._priced(number, token_type, quantity // 8, price, "expired")
                if number % 4 == 0 and token_type == "output":
                    yield self._priced(number, token_type, quantity // 20, price, "invalid")

    def _priced(self, shard: int, token_type: str, quantity: int, price: str, waste: str | None) -> dict[str, object]:
        amount = Decimal(quantity) * Decimal(price)
        made = self.entry(shard, shard=shard, token_type=token_type, quantity=quantity, amount=amount, waste=waste)
        return dict(made)

    def _attempts(self, number: int, dice: random.Random) -> Iterator[ShardTime]:
        built = START + timedelta(seconds=4 * number)
        submitted = built + timedelta(seconds=dice.uniform(20, 700))
        ended = submitted + timedelta(seconds=dice.uniform(1_500, 9_500))
        collected = ended + timedelta(seconds=dice.uniform(5, 300))
        yield ShardTime(number, 1, built, submitted, ended, collected, 10_000, "bedrock")
        if number % 7 == 0:
            later = [collected + timedelta(seconds=seconds) for seconds in (0, 60, 1_200, 1_260)]
            yield ShardTime(number, 2, later[0], later[1], later[2], later[3], 412, "bedrock")

    def _written(self, rows: Sequence[Row], schema: pa.Schema) -> io.BytesIO:
        return self.write({name: [row.get(name) for row in rows] for name in schema.names}, schema)


def _noise(rows: int, characters: int, dice: random.Random) -> list[str]:
    text = dice.randbytes(rows * characters // 2).hex()
    return [text[start : start + characters] for start in range(0, len(text), characters)]


@pytest.fixture(scope="session")
def tables() -> Tables:
    return Tables()
