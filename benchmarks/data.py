"""Generated documents, the same on every machine: 1.9 KB of words, quotes, line ends and letters beyond ASCII."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEXT_BYTES = 1_900
GROUP_ROWS = 20_000

_SCHEMA = pa.schema([("ticket", pa.string()), ("customer", pa.string()), ("body", pa.string())])


@cache
def sentences() -> tuple[str, ...]:
    """2,000 sentences of 60 to 120 characters."""
    chance = random.Random(20260101)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = [12, 9, 8, 8, 7, 7, 6, 6, 6, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 0.2, 0.1, 0.1, 0.1]
    words = ["".join(chance.choices(letters, weights, k=chance.randint(2, 9))) for _ in range(3000)]
    words += ["café", "Größe", "naïve", "価格", "“so-called”", "5 €", '"quoted"', "path\\to", "tab\there"]
    found = []
    for _ in range(2000):
        length, sentence = chance.randint(60, 120), chance.choice(words).capitalize()
        while len(sentence) < length:
            sentence += " " + chance.choice(words)
        found.append(sentence + chance.choice([". ", ". ", "? ", ".\n", ".\n\n"]))
    return tuple(found)


def texts(count: int, seed: int, size: int = TEXT_BYTES) -> Iterator[str]:
    """So many different texts of about so many bytes."""
    chance, pool = random.Random(seed), sentences()
    for number in range(count):
        text = f"Ticket {number}. "
        while len(text) < size - 45:
            text += pool[int(chance.random() * 2000)]
        yield text


def write_parquet(path: Path, count: int, *, size: int = TEXT_BYTES) -> None:
    """One Parquet file of documents: a row key, a field to carry along, and the text."""
    source = texts(count, 7, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for start in range(0, count, GROUP_ROWS):
            rows = range(start, min(start + GROUP_ROWS, count))
            columns = [[f"T-{row:07d}" for row in rows], [f"customer {row % 997}" for row in rows]]
            body = [next(source) for _ in rows]
            writer.write_table(pa.table([*columns, body], schema=_SCHEMA))


MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)
"""What stands for the documents' time of modification where no file has one."""
