"""Tables of a run that never was, with the columns and types of DESIGN.md's results contract."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, sync_playwright

from lowtide.report import ReportMeta, ShardTime, write_report
from lowtide.schemas import LEDGER, RUNS, results_schema

CHROMIUMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        found = next(filter(os.path.exists, (*CHROMIUMS, playwright.chromium.executable_path)), None)
        if found is None:
            pytest.skip("no Chromium here: apt-get install --no-install-recommends chromium")
        running = playwright.chromium.launch(executable_path=found, args=flags)
        yield running
        running.close()
