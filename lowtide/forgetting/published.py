"""Taking documents out of the results that readers see: each window's table is replaced in one step."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.compute as pc

from lowtide.errors import NotFound
from lowtide.forgetting.rewriting import Rewriter, parquet_without, row_groups
from lowtide.forgetting.target import Target
from lowtide.protocols import Store

FOLDER = "tables/results/"


def forget_in_results(rewriter: Rewriter, target: Target) -> None:
    """Every window's table without the rows of these documents; one that has none of them stays as it is."""
    name = "document_id" if target.document_id else "document_uri"
    for path in result_files(rewriter.store):
        rewriter.rewrite("results", path, parquet_without(target.found_in, [name]))


def result_files(store: Store) -> Iterator[str]:
    """The paths of all windows' results."""
    for info in list(store.list(FOLDER)):
        if info.path.endswith(".parquet"):
            yield info.path


def address_in_results(store: Store, document_id: str) -> str:
    """The address of the document with this id, as the results have it; "" if they do not."""
    for path in result_files(store):
        try:
            with store.open(path) as source:
                for rows in row_groups(source, ["document_id", "document_uri"]):
                    found = rows.filter(pc.equal(rows["document_id"], document_id))
                    if len(found):
                        return str(found["document_uri"][0].as_py())
        except NotFound:
            continue
    return ""
