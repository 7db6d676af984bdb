"""What a document may cost to read, as data, and the error that says a document went past it or is broken."""

from __future__ import annotations

from dataclasses import dataclass

from lowtide.errors import LowtideError

MIB = 1 << 20

REASON_CHARACTERS = 200
"""A reason stands in a table cell that people read: one or two lines."""


class Unreadable(LowtideError):
    """A document has no text that can be used. The message is the reason: what was found and what to do, no text."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds for one document, one row or one worker. Sizes are in bytes, times in seconds.

    The defaults are far above what people write and far below what hurts the machine:

    - `file_bytes`: a file that is one document is held in memory whole, at most twice per worker.
    - `text_bytes`: four million tokens of English. No model reads as much, and a batch of documents must fit in memory.
    - `row_bytes`: one line of JSONL, or one row of CSV. What is longer is skipped without being held.
    - `seconds`: wall clock for one document, or for one batch of Parquet rows. A thousand-page PDF takes about one.
    - `memory_bytes`: address space of a worker. Parsers of ordinary documents stay under a third of it.
    - `pages`: of a PDF. The longest books have about half as many.
    - `expansion`: how many times larger than their compressed bytes the parts of a .docx, or a .gz, may be, looked at
      above `expansion_floor` only, since small repetitive files compress well. Deflate can reach 1,032.
    - `expanded_bytes`: what the text parts of one .docx may inflate to, whatever its ratio.
    - `parts`: entries in one .docx; Word writes some twenty, and one more for each picture.
    - `workers`: parser processes that run at the same time.
    - `batch_documents`, `batch_bytes`: when a DocumentBatch is full.
    """

    file_bytes: int = 64 * MIB
    text_bytes: int = 16 * MIB
    row_bytes: int = 8 * MIB
    seconds: float = 30.0
    memory_bytes: int = 1024 * MIB
    pages: int = 2_000
    expansion: int = 100
    expansion_floor: int = 32 * MIB
    expanded_bytes: int = 256 * MIB
    parts: int = 10_000
    workers: int = 2
    batch_documents: int = 1_000
    batch_bytes: int = 16 * MIB


def megabytes(size: int) -> str:
    """A size for people, in units of 2**20 bytes: `64 MB`, `0.3 MB`."""
    value = size / MIB
    return f"{value:.0f} MB" if value >= 10 or value == int(value) else f"{value:.1f} MB"


def reason(text: str) -> str:
    """A reason as it goes into a table: one line, printable, cut at REASON_CHARACTERS."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= REASON_CHARACTERS else line[: REASON_CHARACTERS - 1] + "…"


def names(found: list[str]) -> str:
    """Column or header names for a reason, the first few of them."""
    shown = [name if len(name) <= 24 else name[:23] + "…" for name in found[:6]]
    return ", ".join(shown) + (f" and {len(found) - 6} more" if len(found) > 6 else "") if shown else "none"
