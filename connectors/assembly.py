"""From a job file to everything that a run needs: store, documents, operations, backend and price."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import unquote

from lowtide import windows
from lowtide.budget.caps import job_caps
from lowtide.budget.rootfile import read_caps
from lowtide.connectors.backends import open_backend
from lowtide.connectors.documents import SourceDocuments
from lowtide.connectors.pricing import UNPRICED, Book, price_of
from lowtide.connectors.stores import matching, open_store, split_glob, verify
from lowtide.errors import ConfigError, StoreError, UnsafeStore
from lowtide.job import Job
from lowtide.job.checks import reads_rows
from lowtide.operations import build_operations
from lowtide.plan import Candidate, Work, check_candidates
from lowtide.protocols import Documents, Store
from lowtide.records import DocumentBatch, FileInfo
from lowtide.windows import Window

READING_VERSION = 1
"""Goes into a run's identity: raised when the same file gives another text than before, so that it is asked again."""

_OURS = ("runs/", "tables/", "cache/", "budget/", "prices/", "lowtide.yaml", ".lowtide/")


def assemble(job: Job, window: Window, *, try_root: bool = True, priced: bool = True, keyed: bool = True) -> Work:
    """Put the job's parts together. Reads schema files; lists and reads no document, and does not look for the source.

    With `try_root`, checks that the root can be written and keeps put-if-absent. Without `priced`, prices are left out:
    a run that was planned has its own. Without `keyed`, keys may be missing, and no provider is to be called. Raises
    ConfigError, also for a backend without a price, MissingExtra or UnsafeStore.
    """
    root = open_store(job.output.root)
    operations = build_operations(job)
    backends = [open_backend(spec, root, keyed=keyed) for spec in job.backends]
    if try_root:
        _try(root)
    book = Book(root)
    specs = zip(job.backends, backends, strict=True)
    candidates = tuple(
        Candidate(backend, price_of(spec, backend, book, f"backends[{at}]") if priced else UNPRICED)
        for at, (spec, backend) in enumerate(specs)
    )
    check_candidates(operations, candidates)
    return Work(
        job=job.name,
        window=window,
        operations=operations,
        backend=candidates[0].backend,
        documents=_Source(job, window, root),
        root=root,
        price=candidates[0].price,
        reading={**job.source.model_dump(mode="json"), "version": READING_VERSION},
        fields=tuple(job.source.fields),
        shard_records=job.limits.shard_records,
        attempts=job.limits.attempts,
        poll=job.limits.poll,
        grace=job.limits.grace,
        deadline=job.deadline,
        run_usd=job.budget.run_usd,
        tags=job.output.tags,
        reads_rows=reads_rows(job.source.format, job.source.uri),
        candidates=candidates,
        caps=(*job_caps(job.name, job.budget.month_usd), *read_caps(root)),
        approve_above_usd=job.budget.approve_above_usd,
        price_book=book.book_id,
    )


def _try(root: Store) -> None:
    try:
        verify(root)
    except UnsafeStore:
        raise
    except StoreError as error:
        raise ConfigError(f"output.root {root.uri!r} cannot hold a run: {error}") from error


class _Source:
    """The job's documents. The source is looked for when they are listed: who only reads results does not need it."""

    def __init__(self, job: Job, window: Window, root: Store) -> None:
        self._job, self._window, self._root = job, window, root

    @cached_property
    def _documents(self) -> Documents:
        return _documents(self._job, self._window, self._root)

    def files(self) -> Iterator[FileInfo]:
        return self._documents.files()

    def read(self, files: Iterable[FileInfo]) -> Iterator[DocumentBatch]:
        return self._documents.read(files)


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    """A folder's address without links on the way."""
    return Path(unquote(folder[7:])).resolve().as_uri() if folder.startswith("file://") else folder


def _real_file(uri: str) -> str:
    folder, slash, name = uri.rpartition("/")
    return f"{_real(folder)}{slash}{name}"


def _documents(job: Job, window: Window, root: Store) -> SourceDocuments:
    base, pattern = split_glob(job.source.uri)
    store = open_store(base)
    in_window = windows.file_filter(job.source.window_by, window)
    rows = windows.row_filter(job.source.window_by, window)
    # What we write ourselves is no document, by whatever way it is reached.
    ours = tuple(f"{_real(root.uri)}/{folder}" for folder in _OURS)

    def files() -> Iterator[FileInfo]:
        for info in matching(store, pattern):
            if in_window(info) and not _real_file(info.uri).startswith(ours):
                yield info

    return SourceDocuments(
        store,
        files,
        format=job.source.format,
        text=job.source.text,
        id=job.source.id,
        fields=job.source.fields,
        row_filter_field=rows[0] if rows else None,
        row_filter=rows[1] if rows else None,
    )
