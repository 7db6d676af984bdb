"""Bills of providers, as their exports hold them, read line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lowtide.billing.bill import BillCounts, BillError, BillLine
from lowtide.connectors.bills.aws_cur import AwsCur
from lowtide.connectors.bills.azure import AzureCost
from lowtide.connectors.bills.files import BillFile
from lowtide.connectors.bills.focus import Focus
from lowtide.connectors.bills.layout import Layout
from lowtide.connectors.bills.models import Names, read_names

__all__ = ["Names", "OpenBill", "open_bill", "read_names"]

_AZURE = AzureCost()
_LAYOUTS: tuple[Layout, ...] = (AwsCur(), Focus(), _AZURE)


class OpenBill:
    """A bill whose layout is known; see `lowtide.billing.bill.Bill`."""

    def __init__(self, file: BillFile, layout: Layout, names: Names) -> None:
        self._file, self._layout, self._names = file, layout, names
        self.name, self.layout, self.counts = file.name, layout.name, BillCounts()

    def lines(self) -> Iterator[BillLine]:
        """The lines that are for tokens, or may be; the rest is counted. Raises BillError."""
        counts = self.counts
        for row in self._file.rows(self._layout.required | self._layout.optional):
            place = self._layout.place(row)
            line = self._layout.line(row, place, self._names)
            counts.see(place, in_tokens=line is not None)
            if line is not None:
                yield line


def open_bill(path: Path | str, names: Names | None = None) -> OpenBill:
    """The bill in a file: AWS CUR 2.0, FOCUS 1.0 to 1.2 (AWS, Azure) or an Azure cost export, as Parquet or CSV (gzip).

    Only the heading is read. Lines are streamed, so memory does not grow with the file. Raises BillError for a file
    that is none of these, and says which columns it lacks.
    """
    file = BillFile(Path(path))
    there = {name.lower() for name in file.columns}
    if any(name.startswith("lineitem/") for name in there):
        raise BillError(
            f"{file.path}: is a legacy AWS Cost and Usage Report; export CUR 2.0 or FOCUS with Data Exports"
        )
    layout = max(_LAYOUTS, key=lambda known: len(known.required & there) / len(known.required))
    if not layout.required & there:
        raise BillError(
            f"{file.path}: found the columns {', '.join(map(repr, file.columns[:6]))}; none of "
            f"{', '.join(known.name for known in _LAYOUTS)} has them: give an export as the provider wrote it"
        )
    missing = sorted(layout.required - there)
    if layout is _AZURE:
        missing += [" or ".join(choice) for choice in _AZURE.one_of if not there & set(choice)]
    if missing:
        raise BillError(
            f"{file.path}: looks like {layout.name}, and lacks {', '.join(missing)}; export it again with these columns"
        )
    return OpenBill(file, layout, names or Names())
