"""From a job file to everything that a run needs: store, documents, operations, backend and price."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import unquote

import msgspec

from lowtide import windows
from lowtide.budget.caps import job_caps
from lowtide.budget.rootfile import read_caps
from lowtide.connectors.backends import open_backend
from lowtide.connectors.documents import SourceDocuments
from lowtide.connectors.pricing import UNPRICED, Book, machines_allowed, price_of
from lowtide.connectors.stores import matching, open_store, split_glob, verify
from lowtide.errors import ConfigError, StoreError, UnsafeStore
from lowtide.job import BackendSpec, Job, load_job
from lowtide.job.checks import reads_rows
from lowtide.openruns import Asked
from lowtide.operations import build_operations
from lowtide.plan import Candidate, Work, check_candidates
from lowtide.protocols import Backend, Documents, Store
from lowtide.records import DocumentBatch, FileInfo
from lowtide.windows import Window, parse_window

READING_VERSION = 1
"""Goes into a run's identity: raised when the same file gives another text than before, so that it is asked again."""

_OURS = (
    *("runs/", "open/", "tables/", "cache/", "budget/", "prices/", "backfills/", "forgotten/", "metrics/"),
    *("bedrock/", "ondemand/", "spot/", "lowtide.yaml", ".lowtide/"),
)


def assemble(
    job: Job,
    window: Window,
    *,
    asked: Asked | None = None,
    try_root: bool = True,
    priced: bool = True,
    keyed: bool = True,
) -> Work:
    """Put the job's parts together. Reads schema files; lists and reads no document, and does not look for the source.

    `asked` narrows what the job allows: it may cost less, and go to some of its backends only.
    With `try_root`, checks that the root can be written and keeps put-if-absent. Without `priced`, prices are left out:
    a run that was planned has its own. Without `keyed`, keys may be missing, and no provider is to be called. Raises
    ConfigError, also for a backend without a price, MissingExtra or UnsafeStore.
    """
    root = open_store(job.output.root)
    operations = build_operations(job)
    asked = msgspec.structs.replace(asked or Asked(), job_file=str(job.file))
    allowed = _allowed(job, asked)
    backends = [open_backend(spec, root, keyed=keyed) for spec in allowed.values()]
    if try_root:
        _try(root)
    book = Book(root)
    candidates = tuple(
        _candidate(spec, backend, book, f"backends[{at}]", job.name) if priced else Candidate(backend, UNPRICED)
        for (at, spec), backend in zip(allowed.items(), backends, strict=True)
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
        run_usd=min((usd for usd in (job.budget.run_usd, asked.max_usd) if usd is not None), default=None),
        tags=job.output.tags,
        reads_rows=reads_rows(job.source.format, job.source.uri),
        candidates=candidates,
        caps=(*job_caps(job.name, job.budget.month_usd), *read_caps(root)),
        approve_above_usd=job.budget.approve_above_usd,
        price_book=book.book_id,
        asked=asked,
    )


def assemble_asked(job_file: str, window: str, asked: Asked) -> Work:
    """The work of a run that somebody began, as it was asked for. Raises ConfigError, MissingExtra or UnsafeStore."""
    job = load_job(Path(job_file))
    return assemble(job, parse_window(window, job.zone), asked=asked)


def _candidate(spec: BackendSpec, backend: Backend, book: Book, where: str, job: str) -> Candidate:
    return Candidate(backend, price_of(spec, backend, book, where, job=job), machines_allowed(spec, backend, where))


def _allowed(job: Job, asked: Asked) -> dict[int, BackendSpec]:
    """The job's backends that are asked for, by their places in it: all of them, if none is named."""
    kinds = [spec.kind for spec in job.backends]
    if unknown := [kind for kind in asked.backends if kind not in kinds]:
        raise ConfigError(f"backends: found {unknown[0]!r}; job {job.name!r} has {', '.join(kinds)}")
    return {at: spec for at, spec in enumerate(job.backends) if not asked.backends or spec.kind in asked.backends}


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
    in_window = windows.file_filter(job.source.window_by, window, job.zone)
    rows = windows.row_filter(job.source.window_by, window, job.zone)
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
