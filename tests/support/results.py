"""Compare two tables of results."""

from __future__ import annotations

SAME = ("operation", "status", "output_text", "output", "label", "confidence", "input_tokens", "output_tokens")


def comparable(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """What must not depend on where documents and root lie, by the documents' names."""
    named = [(str(row["document_uri"]).rpartition("/")[2], *(row[name] for name in SAME)) for row in rows]
    return sorted(named, key=str)
