"""From a job file to everything that a run needs: store, documents, operations, backend and price."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import unquote

from lowtide import windows
from lowtide.connectors.backends import open_backend
from lowtide.connectors.documents import SourceDocuments
from lowtide.connectors.stores import matching, open_store, split_glob, verify
from lowtide.errors import ConfigError, StoreError, UnsafeStore
from lowtide.job import Job
from lowtide.job.checks import reads_rows
from lowtide.job.model import BedrockBackend, LocalBackend, PriceSpec
from lowtide.operations import build_operations
from lowtide.plan import Work, check_operations
from lowtide.prices import LOCAL, Price
from lowtide.protocols import Documents, Store
from lowtide.records import DocumentBatch, FileInfo
from lowtide.windows import Window

READING_VERSION = 1
"""Goes into a run's identity: raised when the same file gives another text than before, so that it is asked again."""

_OURS = ("runs/", "tables/", "cache/", "budget/", "prices/", "lowtide.yaml", ".lowtide/")


def assemble(job: Job, window: Window, *, try_root: bool = True) -> Work:
    """Put the job's parts together. Reads schema files; lists and reads no document, and does not look for the source.

    With `try_root`, checks that the root can be written and keeps put-if-absent. Raises ConfigError, MissingExtra or
    UnsafeStore.
    """
    root = open_store(job.output.root)
    operations, backend = build_operations(job), open_backend(job.backends[0], root)
    check_operations(operations, backend)
    if try_root:
        _try(root)
    return Work(
        job=job.name,
        window=window,
        operations=operations,
        backend=backend,
        documents=_Source(job, window, root),
        root=root,
        price=_price(job),
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
    )


def _price(job: Job) -> Price:
    """What the job's backend charges, as its file says. Raises ConfigError for a budget that cannot be kept."""
    spec = job.backends[0]
    if isinstance(spec, LocalBackend):
        return LOCAL
    demanded = spec.on_demand_price if isinstance(spec, BedrockBackend) else None
    missing = [] if spec.price else ["price"]
    missing += ["on_demand_price"] if isinstance(spec, BedrockBackend) and demanded is None else []
    if job.budget.run_usd is not None and missing:
        raise ConfigError(
            "\n".join(
                f"backends[0].{spec.kind}.{key}: missing; budget.run_usd cannot be kept without it: set USD for a "
                f"million tokens, such as {key}: {{input: 0.15, output: 0.60}}"
                for key in missing
            )
        )
    on_demand = None if demanded is None else _of_contract(demanded, f"{spec.model} on demand")
    return _of_contract(spec.price, f"{spec.model} batch", on_demand)


def _of_contract(spec: PriceSpec | None, price_id: str, on_demand: Price | None = None) -> Price:
    if spec is None:
        return Price(f"{price_id}: no price", "none: set price in the job file", {}, on_demand)
    cached = spec.input if spec.cached_input is None else spec.cached_input
    usd = {"input": spec.input, "cached_input": cached, "output": spec.output, "reasoning": spec.output}
    return Price(price_id, spec.reason, {kind: amount / spec.per for kind, amount in usd.items()}, on_demand)


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
