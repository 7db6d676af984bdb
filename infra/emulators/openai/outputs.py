"""The two files that a batch writes: what was answered, and what was not."""

from __future__ import annotations

from pathlib import Path

from lowtide.emulators.openai.rows import Row


class Outputs:
    """Takes the rows as they are answered. Late lines are kept back until `release`."""

    def __init__(self, folder: Path, key: str) -> None:
        """Write to two new files in `folder`."""
        self.results = folder / f"{key}.results"
        self.errors = folder / f"{key}.errors"
        self._results = self.results.open("wb")
        self._errors = self.errors.open("wb")
        self._late: list[tuple[float, bytes]] = []

    def add(self, row: Row) -> None:
        """Write one row's line to where it belongs."""
        if row.late is not None:
            self._late.append((row.late, row.line))
        else:
            (self._results if row.ok else self._errors).write(row.line)

    def close(self) -> None:
        """All rows are written."""
        self._results.close()
        self._errors.close()
        self._late.sort(reverse=True)

    def reverse(self) -> None:
        """Put the results in the opposite order."""
        lines = self.results.read_bytes().splitlines(keepends=True)
        self.results.write_bytes(b"".join(reversed(lines)))

    @property
    def next_late(self) -> float | None:
        """In how many seconds after the end of the batch the next late line is due."""
        return self._late[-1][0] if self._late else None

    def release(self) -> None:
        """Add the late line that is due next."""
        with self.results.open("ab") as file:
            file.write(self._late.pop()[1])
