"""The tables that Lowtide writes: column names and types, a contract with those who read them.

Additive changes only. `job` and `window` are folders of the path (`job=…/window=…`) and stand in no file.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

CONTRACT_VERSION = "1"
MONEY = pa.decimal128(38, 12)
MOMENT = pa.timestamp("us", tz="UTC")

_RESULTS = [
    ("run_id", pa.string()),
    ("window_start", MOMENT),
    ("window_end", MOMENT),
    ("document_id", pa.string()),
    ("document_uri", pa.string()),
    ("document_modified", MOMENT),
    ("operation", pa.string()),
    ("operation_kind", pa.string()),
    ("operation_version", pa.string()),
    ("status", pa.string()),
    ("status_reason", pa.string()),
    ("output_text", pa.string()),
    ("output", pa.string()),
    ("label", pa.string()),
    ("confidence", pa.float64()),
    ("language", pa.string()),
    ("model", pa.string()),
    ("backend", pa.string()),
    ("input_tokens", pa.int64()),
    ("output_tokens", pa.int64()),
    ("cached_tokens", pa.int64()),
    ("cost_usd", MONEY),
    ("cost_usd_float", pa.float64()),
    ("cost_if_realtime_usd", MONEY),
    ("cached", pa.bool_()),
    ("attempts", pa.int32()),
    ("requested_at", MOMENT),
    ("answered_at", MOMENT),
    ("content_sha256", pa.string()),
]

RESULT_COLUMNS = tuple(name for name, _ in _RESULTS)

STATUSES = ("ok", "invalid", "refused", "error", "skipped")

LEDGER = pa.schema(
    [
        ("entry_id", pa.string()),
        ("at", MOMENT),
        ("run_id", pa.string()),
        ("kind", pa.string()),
        ("waste", pa.string()),
        ("scope", pa.string()),
        ("shard", pa.int32()),
        ("attempt", pa.int32()),
        ("backend", pa.string()),
        ("provider", pa.string()),
        ("region", pa.string()),
        ("model", pa.string()),
        ("batch_id", pa.string()),
        ("token_type", pa.string()),
        ("quantity", pa.int64()),
        ("unit", pa.string()),
        ("unit_price", MONEY),
        ("amount", MONEY),
        ("currency", pa.string()),
        ("price_id", pa.string()),
        ("price_source", pa.string()),
        ("realtime_amount", MONEY),
        ("period_start", MOMENT),
        ("period_end", MOMENT),
        ("tags", pa.map_(pa.string(), pa.string())),
    ]
)

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("window_start", MOMENT),
        ("window_end", MOMENT),
        ("backend", pa.string()),
        ("model", pa.string()),
        ("documents", pa.int64()),
        ("rows", pa.int64()),
        *((status, pa.int64()) for status in STATUSES),
        ("requests", pa.int64()),
        ("asked_requests", pa.int64()),
        ("shards", pa.int64()),
        ("batches", pa.int64()),
        ("attempts", pa.int64()),
        ("planned_input_tokens", pa.int64()),
        ("planned_output_tokens", pa.int64()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("text_bytes", pa.int64()),
        ("reused_requests", pa.int64()),
        ("twin_requests", pa.int64()),
        ("compute_seconds", pa.int64()),
        ("compute_waste_seconds", pa.int64()),
        ("machine", pa.string()),
        ("planned_cost_usd", MONEY),
        ("cost_usd", MONEY),
        ("cost_if_realtime_usd", MONEY),
        ("saved_usd", MONEY),
        ("started", MOMENT),
        ("finished", MOMENT),
        ("deadline", MOMENT),
        ("seconds_waiting", pa.float64()),
        ("seconds_working", pa.float64()),
        ("bytes_read", pa.int64()),
        ("bytes_written", pa.int64()),
        ("cancelled", pa.bool_()),
        ("tags", pa.map_(pa.string(), pa.string())),
    ]
)


def results_schema(fields: Sequence[str]) -> pa.Schema:
    """The columns of a results table whose job carries these fields along, as text."""
    return pa.schema([*_RESULTS, *((name, pa.string()) for name in fields)])
